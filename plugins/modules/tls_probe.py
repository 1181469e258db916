#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: tls_probe
short_description: Tell which endpoints answer with TLS, and with which certificate
version_added: 0.1.0
author:
  - The ebpf.datapath authors (!UNKNOWN)
description:
  - Connects to every endpoint, all of them at once, and closes again. The certificate is returned and not judged.
  - Changes nothing, and needs no certificate of its own.
extends_documentation_fragment:
  - ebpf.datapath.executor.attributes
attributes:
  diff_mode:
    description: Nothing is changed, so there is nothing to compare.
    support: N/A
options:
  endpoints:
    description: URLs, as V(https://192.0.2.21:2379).
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds that an endpoint may take.
    type: float
    default: 3
"""

EXAMPLES = r"""
- name: Can this node reach the stores?
  ebpf.datapath.tls_probe:
    endpoints: [https://192.0.2.21:2379, https://192.0.2.31:2379]
"""

RETURN = r"""
answers:
  description: An answer for each endpoint, in their order.
  returned: success
  type: list
  elements: dict
  contains:
    endpoint:
      description: The endpoint.
      type: str
    problem:
      description: Why there is no certificate, null where there is one.
      type: str
    refused:
      description: Whether there is a host that takes no connection at that port.
      type: bool
    certificate:
      description: What answered, in PEM form.
      type: str
"""

import os
import socket
import ssl
import threading
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule


def probe(endpoint, timeout):
    """The answer for one endpoint."""
    answer = {"endpoint": endpoint, "problem": None, "refused": False, "certificate": None}
    host, port = _place(endpoint)
    if host is None or port is None:
        return dict(answer, problem="%s: not https://HOST:PORT" % endpoint)
    try:
        answer["certificate"] = _certificate(host, port, timeout)
    except ConnectionRefusedError:
        answer.update(refused=True, problem="TCP to %s: connection refused" % endpoint)
    except socket.timeout:
        answer["problem"] = "%s: no answer within %g s: a firewall, or no route?" % (endpoint, timeout)
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        answer["problem"] = "TLS with %s: %s" % (endpoint, reason)
    except OSError as error:
        words = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
        answer["problem"] = "TCP to %s: %s" % (endpoint, words)
    return answer


def _place(endpoint):
    """Host and port; None where there is none."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None, None
    return (host, port) if parts.scheme == "https" else (None, None)


def _certificate(host, port, timeout):
    # Who it is is judged where the CAs are; that is not here.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = socket.create_connection((host, port), timeout)
    with context.wrap_socket(connection, server_hostname=host) as wrapped:
        return ssl.DER_cert_to_PEM_cert(wrapped.getpeercert(binary_form=True))


def main():
    module = AnsibleModule(
        argument_spec={
            "endpoints": {"type": "list", "elements": "str", "required": True},
            "timeout": {"type": "float", "default": 3},
        },
        supports_check_mode=True,
    )
    endpoints = module.params["endpoints"]
    answers = [None] * len(endpoints)

    def run(number):
        answers[number] = probe(endpoints[number], module.params["timeout"])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(endpoints))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    module.exit_json(changed=False, answers=answers)


if __name__ == "__main__":
    main()
