from datapath.tracing import reasons

FIELDS = """\
name: kfree_skb
ID: 1520
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:void * location;\toffset:16;\tsize:8;\tsigned:0;
\tfield:unsigned short protocol;\toffset:24;\tsize:2;\tsigned:0;
"""
REASON = "\tfield:enum skb_drop_reason reason;\toffset:28;\tsize:4;\tsigned:0;\n"
PRINT = '\nprint fmt: "skbaddr=%p protocol=%u location=%p reason: %s", REC->skbaddr, REC->protocol, REC->location, '
SYMBOLS = '__print_symbolic(REC->reason, { 2, "NOT_SPECIFIED" }, { 3, "NO_SOCKET" }, { 0x10000, "RX_U_MIC" })\n'


def test_names():
    names = reasons.parse(FIELDS + REASON + PRINT + SYMBOLS)
    assert names == {2: "NOT_SPECIFIED", 3: "NO_SOCKET", 0x10000: "RX_U_MIC"}


def test_kernel_without_reasons():
    described = (
        FIELDS + '\nprint fmt: "skbaddr=%p protocol=%u location=%p", REC->skbaddr, REC->protocol, REC->location\n'
    )
    assert reasons.parse(described) is None


def test_numbers_without_names():
    assert reasons.parse(FIELDS + REASON + PRINT + "REC->reason\n") == {}
