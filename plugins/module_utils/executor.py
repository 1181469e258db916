# SPDX-License-Identifier: Apache-2.0
"""Client of the node's executor: one JSON document in, one JSON document out."""

from __future__ import annotations

import json
import sys

from ansible_collections.ebpf.datapath.plugins.module_utils.lb_options_spec import KEYS

# What an answer to `apply` holds that a module hands on to the user.
_RESULT_KEYS = ("operations", "operation_count", "disruption", "map_writes")

_NO_AGENT = 4


class ExecutorError(Exception):
    """The executor refused a document, or the kernel refused what it asked for.

    `errors` is the executor's own list: document, path, value, message, allowed, nearest and, from the kernel, log.
    """

    def __init__(self, message, errors=(), **details):
        super().__init__(message)
        self.message = message
        self.errors = list(errors)
        self.details = details


class Executor:
    """Runs the command `datapath` on the node; of `module` it uses params, run_command, warn, check and diff mode."""

    def __init__(self, module):
        self._module = module
        path = module.params["executable"]
        # An artefact that is run from where it was copied to needs no execute permission: /tmp is often mounted
        # noexec.
        self._command = [sys.executable, path] if path.endswith(".pyz") else [path]

    def apply(self, document, pending=None):
        """Bring the node to `document`, or in check mode tell what that would do.

        Returns the arguments of exit_json. `pending` holds sections that earlier tasks of the same dry run would have
        applied already: their effects are part of the plan, and are left out of the result.
        """
        check = self._module.check_mode
        if not (check and pending):
            answer = self._apply(document, check)
        else:
            answer = subtract(self._apply(combine(pending, document), check), self._apply(pending, check))
        for warning in answer.get("warnings", ()):
            self._module.warn(warning)
        result = {key: answer[key] for key in _RESULT_KEYS if key in answer}
        result["changed"] = answer["changed"]
        result["document"] = document
        if self._module._diff and "diff" in answer:
            result["diff"] = answer["diff"]
        return result

    def info(self):
        """Facts about the node: kernel features, devices, programs, maps, versions."""
        return self._run(["info", "-o", "json"])

    def _apply(self, document, check):
        arguments = ["apply"] + (["--check"] if check else []) + ["-o", "json", "-"]
        return self._run(arguments, data=json.dumps(document))

    def _run(self, arguments, data=None):
        try:
            code, out, err = self._module.run_command(
                self._command + arguments, data=data, binary_data=True, handle_exceptions=False
            )
        except OSError as error:
            raise ExecutorError(
                "cannot run %s: %s. Role ebpf.datapath.executor installs it; in check mode that role stages it."
                % (self._command[-1], error.strerror)
            ) from error
        return parse(code, out, err)


def parse(code, out, err):
    """The JSON document that the executor answered; raises ExecutorError for any other end."""
    try:
        answer = json.loads(out)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and code == 0 and "errors" not in answer:
        return answer
    errors = answer.get("errors", []) if isinstance(answer, dict) else []
    details = {"rc": code}
    if err.strip():
        details["stderr"] = err
    if code == _NO_AGENT:
        raise ExecutorError(
            "datapathd does not answer. `systemctl status datapathd` and `journalctl -u datapathd` tell why; "
            "role ebpf.datapath.executor installs and starts it.",
            **details,
        )
    if errors:
        raise ExecutorError(render(errors), errors, **details)
    if out.strip():
        details["stdout"] = out
    raise ExecutorError(
        "datapath failed with exit code %d: %s" % (code, err.strip() or out.strip() or "no output"), **details
    )


def render(errors):
    """All violations as one message, a line each; verifier logs follow at the end."""
    refused_by_kernel = all(error.get("document") == "kernel" for error in errors)
    head = "the kernel refused" if refused_by_kernel else "refused, nothing was changed"
    lines = ["%s (%d error%s):" % (head, len(errors), "s" if len(errors) > 1 else "")]
    lines.extend("- " + describe(error) for error in errors)
    for error in errors:
        if error.get("log"):
            lines.extend(["log of %s:" % (error.get("path") or error.get("document")), error["log"].strip()])
    return "\n".join(lines)


def describe(error):
    """One violation as one line: where, what was there, why it is wrong, what is allowed, what was perhaps meant."""
    where = str(error.get("path") or error.get("document") or "document")
    if error.get("value") is not None:
        where += " = " + json.dumps(error["value"], ensure_ascii=False, default=str)
    line = "%s: %s" % (where, error.get("message", "refused"))
    if error.get("allowed"):
        line += " (allowed: %s)" % (error["allowed"],)
    if error.get("nearest"):
        line += " (did you mean %s?)" % (error["nearest"],)
    return line


def combine(pending, document):
    """`document` after `pending`, as one document; options that merge leave those that they do not name."""
    both = {**pending, **document}
    before, after = pending.get("options") or {}, document.get("options") or {}
    if before and after.get("merge"):
        own = after.get("values") or {}
        # What is pending in `config` is applied last, and would have the last word.
        named = {KEYS.get(name) for name in own}
        config = {key: value for key, value in (before.get("config") or {}).items() if key not in named}
        both["options"] = {
            **before,
            "values": {**(before.get("values") or {}), **own},
            "config": {**config, **(after.get("config") or {})},
        }
    return both


def subtract(whole, part):
    """The plan `whole` without what the plan `part`, of a subset of the same documents, does already."""
    known = part.get("operations", [])
    operations = [operation for operation in whole.get("operations", []) if operation not in known]
    count = max(whole.get("operation_count", 0) - part.get("operation_count", 0), len(operations))
    answer = dict(whole, operations=operations, operation_count=count, changed=whole["changed"] and bool(count))
    if "diff" in whole:
        answer["diff"] = {"before": part.get("diff", {}).get("after", ""), "after": whole["diff"]["after"]}
    answer["warnings"] = [warning for warning in whole.get("warnings", ()) if warning not in part.get("warnings", ())]
    return answer


def run(module, call):
    """Run `call(Executor)` and end the module with its result, or with every violation in one message."""
    try:
        result = call(Executor(module))
    except ExecutorError as error:
        module.fail_json(msg=error.message, errors=error.errors, **error.details)
    module.exit_json(**result)


def apply(module, document):
    """Hand a document to the node, and end the module with what that does."""
    run(module, lambda node: node.apply(document, module.params["pending"]))


def given(params, names):
    """The parameters of these names that are given."""
    return {name: params[name] for name in names if params[name] is not None}


def section(params, many, fields):
    """A section of items: those that parameter `many` lists, or the one that the parameters `fields` describe."""
    if params[many] is not None:
        return {"items": params[many], "purge": bool(params["purge"])}
    return {"items": [given(params, fields)], "purge": False}


def refuse_with_absent(module, names):
    """End the module where it is told what would have no effect beside state absent."""
    useless = given(module.params, names)
    if module.params["state"] == "absent" and useless:
        module.fail_json(msg="state is absent, so these would have no effect: %s" % ", ".join(useless))


def common_arguments():
    """Arguments that all modules take (documented in the fragment ebpf.datapath.executor)."""
    return {"executable": {"type": "path", "default": "/usr/local/sbin/datapath"}}


def apply_arguments():
    """Arguments of the modules that change the node (documented in the fragment ebpf.datapath.executor.apply)."""
    return dict(common_arguments(), pending={"type": "dict"})
