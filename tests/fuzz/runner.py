"""Pushes frames through the loaded program as fast as Python can: nothing is allocated for a packet."""

import ctypes

from datapath.kernel import abi, libbpf

LONGEST = 3400
"""What fits into the page that BPF_PROG_TEST_RUN copies a frame to, beside headroom and tailroom."""
SHORTEST = 14


class Runner:
    """BPF_PROG_TEST_RUN with buffers made once."""

    def __init__(self, rig):
        self._program = rig.program
        self._run = libbpf.library().bpf_prog_test_run_opts
        self._input = ctypes.create_string_buffer(LONGEST)
        self._output = ctypes.create_string_buffer(LONGEST + 4096)
        self._input_at, self._output_at = ctypes.addressof(self._input), ctypes.addressof(self._output)
        self._contexts = {device: abi.XdpMd(ingress_ifindex=index) for device, index in rig.devices.items()}
        self._context_at = {device: ctypes.addressof(each) for device, each in self._contexts.items()}
        self._options = abi.TestRunOptions(
            sz=ctypes.sizeof(abi.TestRunOptions),
            data_in=self._input_at,
            data_out=self._output_at,
            ctx_size_in=ctypes.sizeof(abi.XdpMd),
            repeat=1,
        )
        self._reference = ctypes.byref(self._options)

    def push(self, frame, device):
        """(XDP verdict, frame afterwards)."""
        size = len(frame)
        options = self._options
        ctypes.memmove(self._input_at, frame, size)
        options.data_size_in = size
        options.data_size_out = LONGEST + 4096
        self._contexts[device].data_end = size
        options.ctx_in = self._context_at[device]
        result = self._run(self._program, self._reference)
        if result:
            libbpf.check(result, f"running a program on a frame of {size} bytes")
        return options.retval, ctypes.string_at(self._output_at, options.data_size_out)
