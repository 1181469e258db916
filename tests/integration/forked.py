"""The command in a fork of the tests' process, for where Python takes seconds to start: an emulated guest."""

import os
import signal
import subprocess
import sys
import tempfile
import traceback

from datapath.cli import main


def run(words, environment, text, timeout):
    """As subprocess.run of the command, in the calling thread's network namespace."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write((text or "").encode())
        given.seek(0)
        child = os.fork()
        if child == 0:
            _be_the_command(words, environment, (given, output, errors), timeout)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        errors.seek(0)
        said = [file.read().decode() for file in (output, errors)]
    return subprocess.CompletedProcess(words, os.waitstatus_to_exitcode(status), *said)


def _be_the_command(words, environment, files, timeout):
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(timeout))
        for number, file in enumerate(files):
            os.dup2(file.fileno(), number)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ.clear()
        os.environ.update(environment)
        code = main.run(list(words))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
