"""Answer every datagram with `<node> <source address> <source port>` and the payload, over IPv4 and IPv6.

    udp_server.py PORT [ADDRESS...]

An answer comes from the address that the datagram was sent to only where that is given: the wildcard answers from the
address that the route back prefers.
"""

import asyncio
import socket
import sys
from typing import Any

_SO_RCVBUFFORCE = 33


class Echo(asyncio.DatagramProtocol):
    """Answers on one socket."""

    def __init__(self) -> None:
        self.name = socket.gethostname().encode()

    def connection_made(self, transport: Any) -> None:
        """Keep the socket for answers."""
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        """Answer to where it came from."""
        host = address[0].removeprefix("::ffff:").encode()
        self.transport.sendto(b"%s %s %d %s" % (self.name, host, address[1], data), address)


async def serve(address: str, port: int) -> None:
    """One socket."""
    server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    if address == "::":
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
    server.bind((address, port))
    await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=server)


async def main(port: int, addresses: list[str]) -> None:
    """Serve until stopped."""
    for address in addresses or ["::"]:
        await serve(address, port)
    await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
