import ast
import re
from pathlib import Path

import pytest
import yaml

from datapath.generate import argument_specs, sample
from datapath.generate.__main__ import main, outputs, stale
from datapath.generate.text import flow, markdown, to_yaml
from datapath.spec.document import merge
from datapath.spec.later import LATER
from datapath.spec.options import BY_VARIABLE, REGISTRY
from datapath.state.model import DesiredState

ROOT = Path(__file__).resolve().parents[3]
GENERATED = outputs(ROOT)
OPTIONS = pytest.mark.parametrize("option", REGISTRY, ids=[option.key for option in REGISTRY])


def specification(role):
    return yaml.safe_load(GENERATED[f"roles/{role}/meta/argument_specs.yml"])["argument_specs"]["main"]["options"]


def test_generated_files_are_current():
    assert stale(ROOT) == [], "run python -m datapath.generate"


def test_check_tells_what_is_not_current_and_writes_nothing(tmp_path, capsys):
    assert main(["--root", str(tmp_path), "--check"]) == 1
    assert "docs/options.md: is not current" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_files_are_written_once(tmp_path, capsys):
    assert main(["--root", str(tmp_path)]) == 0
    assert "docs/options.md: written" in capsys.readouterr().out
    # the roles that other files describe are missing there, so all that exists is what was written
    assert main(["--root", str(tmp_path), "--check"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""


@OPTIONS
def test_every_option_is_in_every_output(option):
    assert option.variable in specification("datapath")
    assert f"### {option.key}\n" in GENERATED["docs/options.md"]
    assert f"# {option.variable}: " in GENERATED["inventories/sample/group_vars/lb_node/options.yml"]
    assert f'"{option.param}": ' in GENERATED["plugins/module_utils/lb_options_spec.py"]
    assert f"\n  {option.param}:\n" in GENERATED["plugins/doc_fragments/lb_options.py"]


def test_nothing_else_is_in_the_specification_of_the_options():
    other = {"cilium_config_extra_vars", *specification("load_balancer"), *specification("endpoints")}
    assert set(specification("datapath")) - set(BY_VARIABLE) == other


def test_a_node_with_endpoints_has_the_manager_s_options_in_a_place_of_their_own():
    names = {option.variable for option in REGISTRY if argument_specs.of_bandwidth(option)}
    assert {"cilium_enable_bandwidth_manager", "datapath_devices"} <= names
    other = {"cilium_config_extra_vars", *specification("endpoints")}
    assert set(specification("bandwidth_manager")) == names | other
    assert set(uncommented(GENERATED["inventories/sample/group_vars/endpoint_node/options.yml"])) == names


def test_options_have_no_second_default():
    assert [name for name, row in specification("datapath").items() if name in BY_VARIABLE and "default" in row] == []


def test_choices_are_told_to_ansible():
    rows = specification("datapath")
    assert rows["cilium_loadbalancer_mode"]["choices"] == ["snat", "dsr", "hybrid"]
    assert rows["datapath_lb_algorithm"]["choices"] == ["random", "maglev"]


def module_tables():
    names = {}
    for node in ast.parse(GENERATED["plugins/module_utils/lb_options_spec.py"]).body:
        if isinstance(node, ast.Assign):
            names[node.targets[0].id] = ast.literal_eval(node.value)
    return names


def test_the_modules_specification_and_documentation_agree():
    fragment = re.search(r'r"""\n(.*)"""', GENERATED["plugins/doc_fragments/lb_options.py"], re.DOTALL).group(1)
    documented = yaml.safe_load(fragment)["options"]
    tables = module_tables()
    assert {name: {k: v for k, v in row.items() if k != "description"} for name, row in documented.items()} == tables[
        "ARGUMENT_SPEC"
    ]
    assert tables["VARIABLES"] == {option.param: option.variable for option in REGISTRY}
    assert tables["KEYS"] == {option.param: option.key for option in REGISTRY}


def uncommented(text):
    """The sample with every assignment uncommented, as a user might do."""
    lines = []
    assigning = False
    for line in text.splitlines():
        starts = re.fullmatch(r"# (cilium|datapath)_\w+:.*", line) is not None
        assigning = starts or (assigning and line.startswith("#   "))
        if assigning:
            lines.append(line[2:])
    return yaml.safe_load("\n".join(lines))


def test_the_sample_says_nothing_until_something_is_uncommented():
    for name, text in GENERATED.items():
        if name.startswith("inventories/sample/group_vars/"):
            assert yaml.safe_load(text) is None


def test_the_sample_is_valid_when_everything_is_uncommented():
    variables = uncommented(GENERATED["inventories/sample/group_vars/lb_node/options.yml"])
    values = {BY_VARIABLE[name].param: value for name, value in variables.items() if name in BY_VARIABLE}
    assert set(values) == {option.param for option in REGISTRY}
    services = uncommented(GENERATED["inventories/sample/group_vars/lb_node/services.yml"])
    endpoints = uncommented(GENERATED["inventories/sample/group_vars/all/endpoints.yml"])
    state = merge(
        DesiredState(),
        {
            "endpoints": {"items": endpoints["datapath_endpoints"], "purge": endpoints["datapath_endpoints_purge"]},
            "options": {"values": values, "config": variables["cilium_config_extra_vars"]},
            "services": {
                "items": services["datapath_services"],
                # The first is a file, which is read on the control node.
                "manifests": services["datapath_service_manifests"][1:],
                "purge": services["datapath_services_purge"],
            },
        },
    )
    assert [each.name for each in state.services] == ["dns6", "shop/api/http", "web"]
    assert [each.name for each in state.endpoints] == ["containers", "db", "host", "web"]
    assert state.options["bpf-lb-maglev-table-size"] == 65521


def test_the_sample_has_every_variable_of_every_role():
    text = "".join(text for name, text in GENERATED.items() if name.startswith("inventories/sample/group_vars/"))
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        if path.parts[-3] == "lab":
            continue
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            for name in entry.get("options") or {}:
                assert f"# {name}:" in text or name in sample.COMMAND_LINE_ONLY, f"{name} of {path}"


def test_the_services_suboptions_are_the_parsers_fields():
    from datapath.spec import services

    suboptions = argument_specs.entries()["load_balancer"]["options"]["datapath_services"]["options"]
    assert set(suboptions) == set(services.SERVICE_FIELDS)
    assert set(suboptions["health_check"]["options"]) == set(services.HEALTH_FIELDS)


def test_the_endpoints_suboptions_are_the_parsers_fields():
    from datapath.spec import endpoints

    suboptions = argument_specs.entries()["endpoints"]["options"]["datapath_endpoints"]["options"]
    assert set(suboptions) == set(endpoints.ENDPOINT_FIELDS)


def test_refused_names_are_in_the_reference():
    for name in LATER:
        assert f"`{name}`" in GENERATED["docs/options.md"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("eth0", "eth0"),
        ("1024-29999", "1024-29999"),
        ("30s", "30s"),
        ("127.0.0.1:9962", "127.0.0.1:9962"),
        ("12:30", '"12:30"'),
        ("yes", '"yes"'),
        ("007", '"007"'),
        (True, "true"),
        (["eth0", "ens+"], "[eth0, ens+]"),
        ("", '""'),
    ],
)
def test_values_on_one_line_are_read_as_they_were(value, text):
    assert flow(value) == text
    assert yaml.safe_load(f"key: {text}") == {"key": value}


def test_markup():
    assert markdown("set C(debug) to V(true), see O(name)") == "set `debug` to `true`, see `name`"


def test_lists_are_indented():
    assert to_yaml({"a": ["b"]}) == "a:\n  - b\n"
