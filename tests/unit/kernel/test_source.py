"""Compiling on the node, without its compiler: bcc itself is tested by tests/tracing."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from datapath.kernel import programs, source
from datapath.kernel.abi import ProgramType
from datapath.kernel.errors import BpfError, CompilerError, KernelError, RefusedError
from datapath.spec.errors import SpecErrors
from datapath.state.model import Hook, Program
from netns.topology import slowness

# What `source` asks of bcc; the text that it is given is Python, so that each test says what happens.
BCC = """
import ctypes, os

class lib:
    bpf_num_functions = staticmethod(lambda module: 2)
    bpf_function_name = staticmethod(lambda module, index: (b"one", b"two")[index])

class Function:
    def __init__(self, fd):
        self.fd = fd

def say(text):
    os.write(2, text.encode())

def fail(number=0):
    ctypes.set_errno(number)
    raise Exception("failed")

class BPF:
    def __init__(self, text):
        self.module, self.load = 1, lambda name, kind: None
        exec(text, {"say": say, "fail": fail, "self": self, "os": os})
        self._trace_autoload()

    def _trace_autoload(self):
        raise Exception("attached by name")

    def load_func(self, name, kind):
        self.load(name, kind)
        reading, writing = os.pipe()
        os.write(writing, f"{name.decode()} {kind}".encode())
        return Function(reading)
"""


@pytest.fixture
def bcc(tmp_path, monkeypatch):
    """A stand-in for bcc, and for the kernel's headers."""
    (tmp_path / "bcc.py").write_text(BCC)
    (tmp_path / "modules" / os.uname().release / "build").mkdir(parents=True)
    headers = f"from pathlib import Path; requirements.MODULES = Path({str(tmp_path / 'modules')!r}); "
    start = source._START.replace("main(int", f"from datapath.tracing import requirements; {headers}main(int")
    monkeypatch.setattr(source, "_START", start)
    monkeypatch.syspath_prepend(tmp_path)


def load(text, choose=lambda names: names[0], kind=ProgramType.XDP):
    with source.loaded(text, kind, choose) as (fd, name):
        return name, os.read(fd, 100).decode()


def descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


@pytest.mark.usefixtures("bcc")
def test_the_chosen_function_is_handed_over():
    before = descriptors()
    asked = []
    name, content = load("pass", lambda names: asked.extend(names) or names[1], ProgramType.SCHED_CLS)
    assert (asked, name, content) == (["one", "two"], "two", f"two {int(ProgramType.SCHED_CLS)}")
    assert descriptors() == before


@pytest.mark.usefixtures("bcc")
def test_the_compiler_has_neither_environment_nor_directory_of_its_user(monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.chdir(tmp_path)
    assert load("assert os.getcwd() == '/' and 'SECRET' not in os.environ")[0] == "one"


@pytest.mark.usefixtures("bcc")
def test_nobody_chooses():
    def choose(names):
        raise RefusedError("say which one", "program", names)

    before = descriptors()
    with pytest.raises(RefusedError, match="say which one"):
        load("pass", choose)
    assert descriptors() == before


ERRORS = "/virtual/main.c:{0}:9: error: number {0}\\nint x;\\n    ^\\n"


@pytest.mark.usefixtures("bcc")
def test_the_compiler_s_errors_are_told_with_their_lines():
    said = "In file included from <built-in>:1:\\n/virtual/main.c:1:2: warning: not this\\n" + ERRORS.format(3)
    said += "include/linux/ip.h:7:1: fatal error: no such file\\n2 errors generated.\\n"
    with pytest.raises(RefusedError) as caught:
        load(f"say('{said}'); fail()")
    told = "does not compile: line 3, column 9: number 3; include/linux/ip.h, line 7: no such file"
    assert (str(caught.value), caught.value.field) == (told, "source")


@pytest.mark.usefixtures("bcc")
def test_of_many_errors_the_first_are_told():
    said = "".join(ERRORS.format(number) for number in range(1, 13))
    with pytest.raises(RefusedError, match=r"line 10, column 9: number 10; and 2 more errors$"):
        load(f"say('{said}'); fail()")


@pytest.mark.usefixtures("bcc")
@pytest.mark.parametrize("number", [7, 0])
def test_a_map_that_the_kernel_refuses_is_the_kernel_s_error(number):
    with pytest.raises(BpfError, match="bcc makes no program of the source") as caught:
        load(f"say('could not open bpf map: x'); fail({number})")
    assert (caught.value.errno, caught.value.log) == (number or 22, "could not open bpf map: x")


@pytest.mark.usefixtures("bcc")
def test_the_verifier_s_log_comes_without_the_compiler_s_warnings(caplog):
    caplog.set_level("DEBUG")
    with pytest.raises(BpfError, match="the kernel refused the eBPF program") as caught:
        load("say('a warning'); self.load = lambda *_: (say('invalid access'), fail(13))")
    assert (caught.value.errno, caught.value.log) == (13, "invalid access")
    assert caplog.messages == ["bcc: a warning"]


@pytest.mark.usefixtures("bcc")
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("os.kill(os.getpid(), 9)", "the compiler was killed by SIGKILL without an answer"),
        ("os._exit(3)", "the compiler ended with exit code 3 without an answer"),
    ],
)
@pytest.mark.parametrize("when", ["say('last words'); {}", "say('last words'); self.load = lambda *_: {}"])
def test_a_compiler_that_dies(what, message, when):
    before = descriptors()
    with pytest.raises(CompilerError, match=message) as caught:
        load(when.format(what))
    assert (caught.value.log, caught.value.errno) == ("last words", 0)
    assert descriptors() == before


@pytest.mark.usefixtures("bcc")
def test_a_compiler_that_hangs_is_killed(monkeypatch, tmp_path):
    # Long enough to start an interpreter.
    monkeypatch.setattr(source, "SECONDS", 2 * slowness())
    pid = tmp_path / "pid"
    with pytest.raises(CompilerError, match=r"did not end within \d+ s"):
        load(f"open({str(pid)!r}, 'w').write(str(os.getpid())); import time; time.sleep(600)")
    assert not Path(f"/proc/{pid.read_text()}").exists()


@pytest.mark.usefixtures("bcc")
def test_what_a_source_becomes_is_remembered(monkeypatch, tmp_path):
    monkeypatch.setattr(programs, "_identity", lambda fd: ("one", "f" * 16, ""))
    programs._source_identity.cache_clear()
    runs = tmp_path / "runs"
    text = f"open({str(runs)!r}, 'a').write('.')"
    for hook in (Hook.XDP, Hook.XDP, Hook.TC):
        programs._source_identity(text, "one", hook)
    with pytest.raises(RefusedError):
        programs._source_identity(text, "three", Hook.XDP)
    with pytest.raises(RefusedError):
        programs._source_identity(text, "three", Hook.XDP)
    assert runs.read_text() == "...."
    programs._source_identity.cache_clear()


WANTED = Program("one", "", "one", Hook.XDP, "eth0", source="pass")


def test_a_node_without_bcc_refuses_with_the_remedy(kernel):
    with pytest.raises(SpecErrors) as caught:
        kernel.inspect_program(WANTED)
    (error,) = caught.value.errors
    assert (error.document, error.path, error.value) == ("programs", "programs.one.source", None)
    assert "role ebpf.datapath.tracing installs what is missing" in error.message


@pytest.mark.usefixtures("bcc")
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (None, r"the source holds 2 programs \(one, two\): say which one"),
        ("three", "the source holds no program three; it holds: one, two"),
    ],
)
def test_functions_are_listed(kernel, function, message):
    with pytest.raises(SpecErrors, match=message) as caught:
        kernel.inspect_program(replace(WANTED, function=function))
    assert caught.value.errors[0].path == "programs.one.program"


@pytest.mark.usefixtures("bcc")
def test_a_compiler_that_dies_is_an_error_of_the_program(kernel):
    with pytest.raises(KernelError) as caught:
        kernel.inspect_program(replace(WANTED, source="say('last words'); os._exit(3)"))
    assert caught.value.message == "the compiler ended with exit code 3 without an answer"
    assert (caught.value.errno, caught.value.log) == (0, "last words")
    assert caught.value.operation.program.program.name == "one"
