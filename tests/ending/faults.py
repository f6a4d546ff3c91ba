# faulthandler prints where a program was when it faulted, and leaves it to its signal.
import subprocess, sys

CHILD = """
import ctypes, faulthandler
faulthandler.enable()
{}
"""
CALLS = {
    "string_at": "ctypes.string_at(0)",
    "_sigsegv": "faulthandler._sigsegv()",
    "_stack_overflow": "faulthandler._stack_overflow()",
}

for name, call in CALLS.items():
    child = subprocess.run([sys.executable, "-c", CHILD.format(call)], capture_output=True, text=True)
    told = "Fatal Python error: Segmentation fault" in child.stderr and 'File "<string>", line 4' in child.stderr
    print(name, child.returncode, told and "fencepost" not in child.stderr)
