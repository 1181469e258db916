import struct
import time

from datapath.kernel import clock, libbpf
from datapath.kernel.abi import ProgramType

# call bpf_jiffies64; exit (the verdict is the low half of the result)
JIFFIES = struct.pack("=BBhiBBhi", 0x85, 0, 0, 118, 0x95, 0, 0, 0)


def test_as_many_jiffies_pass_in_a_second():
    with libbpf.closing(libbpf.program_load(ProgramType.SCHED_CLS, JIFFIES)) as program:

        def now():
            return libbpf.run_program(program, bytes(60))[0], time.monotonic()

        (first, started), (last, ended) = now(), now()
        while ended - started < 0.5:
            last, ended = now()
    measured = (last - first) % 2**32 / (ended - started)
    # The nearest of the choices of CONFIG_HZ: a virtual machine's ticks come late.
    assert clock.jiffies_hz() == min((100, 250, 300, 1000), key=lambda choice: abs(choice - measured))
