"""HOST:PORT on a command line."""

from typing import NamedTuple


class Address(NamedTuple):
    """A host, without the brackets of IPv6, and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """The address in a text. Raises ValueError with the expected form."""
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r} is not HOST:PORT, e.g. fl.example.org:9092 or [2001:db8::1]:9092")
        return cls(host, int(port))
