"""Commands for gdb in programs that run under fencepost: `fencepost whatis EXPRESSION`.

gdb loads this file with the library if it lies where gdb looks for it, or on request (`source FILE`). What lies at the
address is asked of the launcher, `fencepost explain`, which reads the process or the core file itself.
"""

import os
import re
import shutil
import subprocess

import gdb


def launcher():
    """The launcher that belongs to the library: named by FENCEPOST, beside the library, below its prefix, in PATH."""
    named = os.environ.get("FENCEPOST")
    if named:
        return named
    for objfile in gdb.objfiles():
        name = objfile.filename or ""
        if not os.path.basename(name).startswith("libfencepost.so"):
            continue
        home = os.path.dirname(os.path.realpath(name))
        for place in ("fencepost", "../bin/fencepost", "../../bin/fencepost"):
            candidate = os.path.normpath(os.path.join(home, place))
            if os.access(candidate, os.X_OK) and os.path.isfile(candidate):
                return candidate
    found = shutil.which("fencepost")
    if found is None:
        raise gdb.GdbError("the launcher `fencepost` was not found; name it in the environment variable FENCEPOST")
    return found


def target():
    """The process id, or the core file's path."""
    found = re.search(r"core dump file:\s*`(.*)', file type", gdb.execute("info files", to_string=True))
    if found:
        return found.group(1)
    pid = gdb.selected_inferior().pid
    if not pid:
        raise gdb.GdbError("there is no process and no core file")
    return str(pid)


class Fencepost(gdb.Command):
    """Questions about the heap of a program that runs under fencepost."""

    def __init__(self):
        super().__init__("fencepost", gdb.COMMAND_DATA, prefix=True)


class Whatis(gdb.Command):
    """Say which object an address belongs or belonged to, who allocated it and who freed it.

fencepost whatis EXPRESSION"""

    def __init__(self):
        super().__init__("fencepost whatis", gdb.COMMAND_DATA, gdb.COMPLETE_EXPRESSION)

    def invoke(self, argument, from_tty):
        if not argument.strip():
            raise gdb.GdbError("fencepost whatis EXPRESSION")
        value = gdb.parse_and_eval(argument)
        if value.type.strip_typedefs().code == gdb.TYPE_CODE_ARRAY:
            value = value.address
        address = int(value.cast(gdb.lookup_type("unsigned long")))
        # The launcher is no program to be looked into by the library.
        environment = {name: text for name, text in os.environ.items() if name != "LD_PRELOAD"}
        command = [launcher(), "--color", "never", "explain", target(), hex(address)]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
        gdb.write(result.stdout)
        if result.stderr:
            gdb.write(result.stderr, gdb.STDERR)


Fencepost()
Whatis()
