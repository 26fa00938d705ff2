"""forbid_io_uring.py ERRNO COMMAND..: runs a command for which io_uring's three calls fail with ERRNO, as under a container's seccomp profile."""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_AT_LEAST, JUMP_IF_ABOVE, RETURN = 0x20, 0x35, 0x25, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
SETUP, REGISTER = 425, 427  # the same on x86_64 and aarch64; 426 is io_uring_enter

errno, command = int(sys.argv[1]), sys.argv[2:]
program = [
    (LOAD, 0, 0, 0),  # the call's number
    (JUMP_IF_AT_LEAST, 0, 2, SETUP),
    (JUMP_IF_ABOVE, 1, 0, REGISTER),
    (RETURN, 0, 0, FAIL | errno),
    (RETURN, 0, 0, ALLOW),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in program))
header = ctypes.create_string_buffer(struct.pack("HL", len(program), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0):
    sys.exit(f"no filter: {os.strerror(ctypes.get_errno())}")
os.execvp(command[0], command)
