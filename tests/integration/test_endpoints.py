"""Endpoints of a real node: listed where they are, pending where they are not, followed when they come."""


def endpoints(*items):
    return {"endpoints": {"items": list(items), "purge": True}}


def states(node):
    return {each["name"]: each["state"] for each in node.ask("endpoint", "list")["endpoints"]}


def test_endpoints_come_and_go_with_their_devices(agent):
    document = endpoints(
        {"name": "db", "interface": "ve-db", "labels": {"app": "db"}, "addresses": ["10.0.2.11"]},
        {"name": "containers", "interfaces": "ve-*"},
        {"name": "host", "host": True},
    )
    pending = "endpoint db is pending: there is no device ve-db; it is applied when that appears"
    assert pending in agent.check(document)["warnings"]
    assert states(agent) == {}
    assert pending in agent.apply(document)["warnings"]
    assert not agent.apply(document)["changed"]
    assert states(agent) == {"containers": "pending", "db": "pending", "host": "present"}
    assert pending in agent.ask("status")["problems"]
    for name in ("ve-db", "ve-web"):
        agent.lb.run(f"ip link add {name} type veth peer name {name}-peer")
    names = {"containers/ve-db-peer", "containers/ve-web", "containers/ve-web-peer", "db", "host"}
    assert states(agent) == dict.fromkeys(names, "present")
    assert agent.ask("status")["endpoints"] == {"total": 5, "present": 5}
    assert pending not in agent.ask("status")["problems"]
    (row,) = agent.ask("endpoint", "list", "db")["endpoints"]
    assert (row["interface"], row["labels"], row["addresses"]) == ("ve-db", {"app": "db"}, ["10.0.2.11"])
    agent.stop()
    assert states(agent)["db"] == "present"


def test_an_endpoint_as_its_manifest_says(agent):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}}}
    document = endpoints({"interface": "client0", "manifest": pod})
    assert agent.apply(document)["changed"]
    (row,) = agent.ask("endpoint", "list", "web")["endpoints"]
    assert (row["interface"], row["labels"], row["state"]) == ("client0", {"app": "web"}, "present")
    # What is stored is the endpoint, so it makes no difference who describes it.
    assert not agent.apply(document)["changed"]
    assert not agent.apply(endpoints({"name": "web", "interface": "client0", "labels": {"app": "web"}}))["changed"]
    pod["metadata"]["annotations"] = {"kubernetes.io/egress-bandwidth": "0"}
    (error,) = agent.apply(document, code=2)["errors"]
    assert error["path"] == "endpoints.items[0].manifest.metadata.annotations.kubernetes.io/egress-bandwidth"
    assert not agent.apply(endpoints({"name": "web", "interface": "client0", "labels": {"app": "web"}}))["changed"]


def test_an_unknown_endpoint_is_told_with_the_nearest(agent):
    agent.apply(endpoints({"name": "host", "host": True}))
    answer = agent.run("endpoint", "list", "hots")
    assert answer.returncode == 2
    assert "host" in answer.stderr
