// The one table of functions of the C library that are intercepted: a row each with the family that the option
// `intercept` switches, the symbol, the name that reports show, the signature, and the rule: which of the arguments are
// read or written over how many bytes, or the function that knows better. `build.rs` makes the symbols of it,
// `mod.rs` the functions, and `tests/symbols.rs` compares the names with what the library exports.

macro_rules! intercepted {
    ($each:ident) => {
        $each! {
            copy memcpy as memcpy(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void, { write(to, count); read(from, count); };
            copy memmove as memmove(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void, { write(to, count); read(from, count); };
            copy mempcpy as mempcpy(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void, { write(to, count); read(from, count); };
            copy __mempcpy as mempcpy(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void, { write(to, count); read(from, count); };
            copy memset as memset(to: *mut c_void, byte: c_int, count: usize) -> *mut c_void, { write(to, count); };
            copy bcopy as bcopy(from: *const c_void, to: *mut c_void, count: usize) -> (), { write(to, count); read(from, count); };
            copy bzero as bzero(to: *mut c_void, count: usize) -> (), { write(to, count); };
            copy explicit_bzero as explicit_bzero(to: *mut c_void, count: usize) -> (), { write(to, count); };
            copy __memcpy_chk as memcpy(to: *mut c_void, from: *const c_void, count: usize, room: usize) -> *mut c_void, { write(to, count); read(from, count); };
            copy __memmove_chk as memmove(to: *mut c_void, from: *const c_void, count: usize, room: usize) -> *mut c_void, { write(to, count); read(from, count); };
            copy __mempcpy_chk as mempcpy(to: *mut c_void, from: *const c_void, count: usize, room: usize) -> *mut c_void, { write(to, count); read(from, count); };
            copy __memset_chk as memset(to: *mut c_void, byte: c_int, count: usize, room: usize) -> *mut c_void, { write(to, count); };
            copy __explicit_bzero_chk as explicit_bzero(to: *mut c_void, count: usize, room: usize) -> (), { write(to, count); };
            copy wmemcpy as wmemcpy(to: *mut Wide, from: *const Wide, count: usize) -> *mut Wide, { write(to, wide(count)); read(from, wide(count)); };
            copy wmemmove as wmemmove(to: *mut Wide, from: *const Wide, count: usize) -> *mut Wide, { write(to, wide(count)); read(from, wide(count)); };
            copy wmempcpy as wmempcpy(to: *mut Wide, from: *const Wide, count: usize) -> *mut Wide, { write(to, wide(count)); read(from, wide(count)); };
            copy wmemset as wmemset(to: *mut Wide, value: Wide, count: usize) -> *mut Wide, { write(to, wide(count)); };
            copy __wmemcpy_chk as wmemcpy(to: *mut Wide, from: *const Wide, count: usize, room: usize) -> *mut Wide, { write(to, wide(count)); read(from, wide(count)); };
            copy __wmemmove_chk as wmemmove(to: *mut Wide, from: *const Wide, count: usize, room: usize) -> *mut Wide, { write(to, wide(count)); read(from, wide(count)); };
            copy __wmempcpy_chk as wmempcpy(to: *mut Wide, from: *const Wide, count: usize, room: usize) -> *mut Wide, { write(to, wide(count)); read(from, wide(count)); };
            copy __wmemset_chk as wmemset(to: *mut Wide, value: Wide, count: usize, room: usize) -> *mut Wide, { write(to, wide(count)); };

            text memcmp as memcmp(one: *const c_void, other: *const c_void, count: usize) -> c_int, [text::memcmp];
            text bcmp as bcmp(one: *const c_void, other: *const c_void, count: usize) -> c_int, [text::bcmp];
            text memchr as memchr(from: *const c_void, byte: c_int, count: usize) -> *mut c_void, [text::memchr];
            text strlen as strlen(text: *const Byte) -> usize, [text::strlen];
            text strnlen as strnlen(text: *const Byte, most: usize) -> usize, [text::strnlen];
            text strcpy as strcpy(to: *mut Byte, from: *const Byte) -> *mut Byte, [text::strcpy];
            text stpcpy as stpcpy(to: *mut Byte, from: *const Byte) -> *mut Byte, [text::stpcpy];
            text __stpcpy as stpcpy(to: *mut Byte, from: *const Byte) -> *mut Byte, [text::stpcpy];
            text strncpy as strncpy(to: *mut Byte, from: *const Byte, count: usize) -> *mut Byte, [text::strncpy];
            text stpncpy as stpncpy(to: *mut Byte, from: *const Byte, count: usize) -> *mut Byte, [text::stpncpy];
            text strcat as strcat(to: *mut Byte, from: *const Byte) -> *mut Byte, [text::strcat];
            text strncat as strncat(to: *mut Byte, from: *const Byte, most: usize) -> *mut Byte, [text::strncat];
            text strcmp as strcmp(one: *const Byte, other: *const Byte) -> c_int, [text::strcmp];
            text strncmp as strncmp(one: *const Byte, other: *const Byte, most: usize) -> c_int, [text::strncmp];
            text strchr as strchr(text: *const Byte, byte: c_int) -> *mut Byte, [text::strchr];
            text index as index(text: *const Byte, byte: c_int) -> *mut Byte, [text::index];
            text strrchr as strrchr(text: *const Byte, byte: c_int) -> *mut Byte, [text::strrchr];
            text strdup as strdup(text: *const Byte) -> *mut Byte, [text::strdup];
            text __strdup as strdup(text: *const Byte) -> *mut Byte, [text::strdup];
            text strndup as strndup(text: *const Byte, most: usize) -> *mut Byte, [text::strndup];
            text __strndup as strndup(text: *const Byte, most: usize) -> *mut Byte, [text::strndup];
            text __strcpy_chk as strcpy(to: *mut Byte, from: *const Byte, room: usize) -> *mut Byte, [text::strcpy_chk];
            text __stpcpy_chk as stpcpy(to: *mut Byte, from: *const Byte, room: usize) -> *mut Byte, [text::stpcpy_chk];
            text __strncpy_chk as strncpy(to: *mut Byte, from: *const Byte, count: usize, room: usize) -> *mut Byte, [text::strncpy_chk];
            text __stpncpy_chk as stpncpy(to: *mut Byte, from: *const Byte, count: usize, room: usize) -> *mut Byte, [text::stpncpy_chk];
            text __strcat_chk as strcat(to: *mut Byte, from: *const Byte, room: usize) -> *mut Byte, [text::strcat_chk];
            text __strncat_chk as strncat(to: *mut Byte, from: *const Byte, most: usize, room: usize) -> *mut Byte, [text::strncat_chk];
            text wmemcmp as wmemcmp(one: *const Wide, other: *const Wide, count: usize) -> c_int, [text::wmemcmp];
            text wmemchr as wmemchr(from: *const Wide, value: Wide, count: usize) -> *mut Wide, [text::wmemchr];
            text wcslen as wcslen(text: *const Wide) -> usize, [text::wcslen];
            text wcsnlen as wcsnlen(text: *const Wide, most: usize) -> usize, [text::wcsnlen];
            text wcscpy as wcscpy(to: *mut Wide, from: *const Wide) -> *mut Wide, [text::wcscpy];
            text wcpcpy as wcpcpy(to: *mut Wide, from: *const Wide) -> *mut Wide, [text::wcpcpy];
            text wcsncpy as wcsncpy(to: *mut Wide, from: *const Wide, count: usize) -> *mut Wide, [text::wcsncpy];
            text wcscat as wcscat(to: *mut Wide, from: *const Wide) -> *mut Wide, [text::wcscat];
            text wcsncat as wcsncat(to: *mut Wide, from: *const Wide, most: usize) -> *mut Wide, [text::wcsncat];
            text wcscmp as wcscmp(one: *const Wide, other: *const Wide) -> c_int, [text::wcscmp];
            text wcsncmp as wcsncmp(one: *const Wide, other: *const Wide, most: usize) -> c_int, [text::wcsncmp];
            text wcschr as wcschr(text: *const Wide, value: Wide) -> *mut Wide, [text::wcschr];
            text wcsrchr as wcsrchr(text: *const Wide, value: Wide) -> *mut Wide, [text::wcsrchr];
            text wcsdup as wcsdup(text: *const Wide) -> *mut Wide, [text::wcsdup];
            text __wcscpy_chk as wcscpy(to: *mut Wide, from: *const Wide, room: usize) -> *mut Wide, [text::wcscpy_chk];
            text __wcpcpy_chk as wcpcpy(to: *mut Wide, from: *const Wide, room: usize) -> *mut Wide, [text::wcpcpy_chk];
            text __wcsncpy_chk as wcsncpy(to: *mut Wide, from: *const Wide, count: usize, room: usize) -> *mut Wide, [text::wcsncpy_chk];
            text __wcscat_chk as wcscat(to: *mut Wide, from: *const Wide, room: usize) -> *mut Wide, [text::wcscat_chk];
            text __wcsncat_chk as wcsncat(to: *mut Wide, from: *const Wide, most: usize, room: usize) -> *mut Wide, [text::wcsncat_chk];
            text vsprintf as vsprintf(to: *mut Byte, format: *const Byte, list: *mut List) -> c_int, [print::vsprintf];
            text vsnprintf as vsnprintf(to: *mut Byte, most: usize, format: *const Byte, list: *mut List) -> c_int, [print::vsnprintf];
            text __vsprintf_chk as vsprintf(to: *mut Byte, flag: c_int, room: usize, format: *const Byte, list: *mut List) -> c_int, [print::vsprintf_chk];
            text __vsnprintf_chk as vsnprintf(to: *mut Byte, most: usize, flag: c_int, room: usize, format: *const Byte, list: *mut List) -> c_int, [print::vsnprintf_chk];

            call read as read(fd: c_int, buffer: *mut c_void, count: usize) -> ssize_t, [transfer::read];
            call pread as pread(fd: c_int, buffer: *mut c_void, count: usize, offset: off_t) -> ssize_t, [transfer::pread];
            call pread64 as pread64(fd: c_int, buffer: *mut c_void, count: usize, offset: off_t) -> ssize_t, [transfer::pread64];
            call readv as readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t, [vector::readv];
            call preadv as preadv(fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t, [vector::preadv];
            call preadv64 as preadv64(fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t, [vector::preadv64];
            call recv as recv(fd: c_int, buffer: *mut c_void, count: usize, flags: c_int) -> ssize_t, [transfer::recv];
            call recvfrom as recvfrom(fd: c_int, buffer: *mut c_void, count: usize, flags: c_int, from: *mut sockaddr, size: *mut socklen_t) -> ssize_t, [transfer::recvfrom];
            call recvmsg as recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t, [vector::recvmsg];
            call write as write(fd: c_int, buffer: *const c_void, count: usize) -> ssize_t, [transfer::write];
            call pwrite as pwrite(fd: c_int, buffer: *const c_void, count: usize, offset: off_t) -> ssize_t, [transfer::pwrite];
            call pwrite64 as pwrite64(fd: c_int, buffer: *const c_void, count: usize, offset: off_t) -> ssize_t, [transfer::pwrite64];
            call writev as writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t, [vector::writev];
            call pwritev as pwritev(fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t, [vector::pwritev];
            call pwritev64 as pwritev64(fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t, [vector::pwritev64];
            call send as send(fd: c_int, buffer: *const c_void, count: usize, flags: c_int) -> ssize_t, [transfer::send];
            call sendto as sendto(fd: c_int, buffer: *const c_void, count: usize, flags: c_int, to: *const sockaddr, size: socklen_t) -> ssize_t, [transfer::sendto];
            call sendmsg as sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t, [vector::sendmsg];
            call getcwd as getcwd(buffer: *mut c_char, count: usize) -> *mut c_char, [answer::getcwd];
            call readlink as readlink(path: *const c_char, buffer: *mut c_char, count: usize) -> ssize_t, [answer::readlink];
            call readlinkat as readlinkat(at: c_int, path: *const c_char, buffer: *mut c_char, count: usize) -> ssize_t, [answer::readlinkat];
            call getrandom as getrandom(buffer: *mut c_void, count: usize, flags: c_uint) -> ssize_t, [answer::getrandom];
            call getsockopt as getsockopt(fd: c_int, level: c_int, option: c_int, value: *mut c_void, size: *mut socklen_t) -> c_int, [answer::getsockopt];
            call __read_chk as read(fd: c_int, buffer: *mut c_void, count: usize, room: usize) -> ssize_t, [transfer::read_chk];
            call __pread_chk as pread(fd: c_int, buffer: *mut c_void, count: usize, offset: off_t, room: usize) -> ssize_t, [transfer::pread_chk];
            call __pread64_chk as pread64(fd: c_int, buffer: *mut c_void, count: usize, offset: off_t, room: usize) -> ssize_t, [transfer::pread64_chk];
            call __recv_chk as recv(fd: c_int, buffer: *mut c_void, count: usize, room: usize, flags: c_int) -> ssize_t, [transfer::recv_chk];
            call __recvfrom_chk as recvfrom(fd: c_int, buffer: *mut c_void, count: usize, room: usize, flags: c_int, from: *mut sockaddr, size: *mut socklen_t) -> ssize_t, [transfer::recvfrom_chk];
            call __readlink_chk as readlink(path: *const c_char, buffer: *mut c_char, count: usize, room: usize) -> ssize_t, [transfer::readlink_chk];
            call __readlinkat_chk as readlinkat(at: c_int, path: *const c_char, buffer: *mut c_char, count: usize, room: usize) -> ssize_t, [transfer::readlinkat_chk];
            call __getcwd_chk as getcwd(buffer: *mut c_char, count: usize, room: usize) -> *mut c_char, [transfer::getcwd_chk];

            stream fread as fread(buffer: *mut c_void, size: usize, count: usize, stream: *mut FILE) -> usize, [stream::fread];
            stream fread_unlocked as fread_unlocked(buffer: *mut c_void, size: usize, count: usize, stream: *mut FILE) -> usize, [stream::fread_unlocked];
            stream fwrite as fwrite(buffer: *const c_void, size: usize, count: usize, stream: *mut FILE) -> usize, [stream::fwrite];
            stream fwrite_unlocked as fwrite_unlocked(buffer: *const c_void, size: usize, count: usize, stream: *mut FILE) -> usize, [stream::fwrite_unlocked];
            stream fgets as fgets(to: *mut Byte, most: c_int, stream: *mut FILE) -> *mut Byte, [stream::fgets];
            stream fgets_unlocked as fgets_unlocked(to: *mut Byte, most: c_int, stream: *mut FILE) -> *mut Byte, [stream::fgets_unlocked];
            stream getline as getline(to: *mut *mut Byte, size: *mut usize, stream: *mut FILE) -> ssize_t, [stream::getline];
            stream getdelim as getdelim(to: *mut *mut Byte, size: *mut usize, delimiter: c_int, stream: *mut FILE) -> ssize_t, [stream::getdelim];
            stream __getdelim as getdelim(to: *mut *mut Byte, size: *mut usize, delimiter: c_int, stream: *mut FILE) -> ssize_t, [stream::inner_getdelim];
            stream __fread_chk as fread(buffer: *mut c_void, room: usize, size: usize, count: usize, stream: *mut FILE) -> usize, [stream::fread_chk];
            stream __fread_unlocked_chk as fread_unlocked(buffer: *mut c_void, room: usize, size: usize, count: usize, stream: *mut FILE) -> usize, [stream::fread_unlocked_chk];
            stream __fgets_chk as fgets(to: *mut Byte, room: usize, most: c_int, stream: *mut FILE) -> *mut Byte, [stream::fgets_chk];
            stream __fgets_unlocked_chk as fgets_unlocked(to: *mut Byte, room: usize, most: c_int, stream: *mut FILE) -> *mut Byte, [stream::fgets_unlocked_chk];
        }
    };
}

// The same for functions of a variable number of arguments, with the number of the others. The function that does the
// work gets a list of them.
macro_rules! intercepted_variadic {
    ($each:ident) => {
        $each! {
            text sprintf as sprintf 2 (to: *mut Byte, format: *const Byte, list: *mut List) -> c_int, [print::sprintf];
            text snprintf as snprintf 3 (to: *mut Byte, most: usize, format: *const Byte, list: *mut List) -> c_int, [print::snprintf];
            text __sprintf_chk as sprintf 4 (to: *mut Byte, flag: c_int, room: usize, format: *const Byte, list: *mut List) -> c_int, [print::sprintf_chk];
            text __snprintf_chk as snprintf 5 (to: *mut Byte, most: usize, flag: c_int, room: usize, format: *const Byte, list: *mut List) -> c_int, [print::snprintf_chk];
        }
    };
}

// What this library calls itself, or the compiler for it: such calls go to the C library's functions at once.
macro_rules! own_calls {
    ($each:ident) => {
        $each! {
            memcpy(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void;
            memmove(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void;
            memset(to: *mut c_void, byte: c_int, count: usize) -> *mut c_void;
            memcmp(one: *const c_void, other: *const c_void, count: usize) -> c_int;
            bcmp(one: *const c_void, other: *const c_void, count: usize) -> c_int;
            strlen(text: *const Byte) -> usize;
        }
    };
}
