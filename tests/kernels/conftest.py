import os


class ShownAtOnce:
    """Shows failures when they happen: a guest may end before its summary."""

    def __init__(self, plugins):
        self.plugins = plugins

    def pytest_runtest_logreport(self, report):
        if report.failed:
            terminal = self.plugins.get_plugin("terminalreporter")
            terminal.write_line(f"\n{report.nodeid} ({report.when})\n{report.longreprtext}")


def pytest_configure(config):
    if "DATAPATH_TEST_KERNEL" in os.environ:
        config.pluginmanager.register(ShownAtOnce(config.pluginmanager))
