"""The roster: the sites that have introduced themselves, by node.

Flower gives a restarted node a new id, unless the node has a key, and lists a dead node for another minute. The roster
therefore identifies a site by its name. A name belongs to the key that was registered with it, or else to the first key
that used it. A resumed run remembers registered keys only, because a node without one makes a new key at each start.

A node handles one message after the other. When a site does not reply, the server asks its node for an introduction
again, and does not sample the site until the introduction comes. The introduction shows that the site is back, that it
is free, and which data it has now.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from common.build import bases
from common.config.experiment import Experiment
from common.config.reading import for_clients
from common.errors import WireError
from common.exchange import wire
from common.findings import Findings
from common.types import Site
from common.words.units import few
from server.clients.exchange import POLL_SECONDS, why
from server.clients.replies import Refusal, read_introduction
from server.clients.uploads import uploads
from server.sites.attention import unlike
from server.sites.bases import unlike_bases

log = logging.getLogger(__name__)
NAMED = 8
"""The maximum number of names of sites in a sentence."""
LISTED = 10_000
"""The maximum number of refused or lost sites with a reason. Only the latest are kept, because a site can invent any
number of names."""
INTRODUCTIONS = 3
"""The maximum number of queries in a row to a node that does not answer, e.g. because its process is killed."""


class Roster:
    """Sites by their state.

    free: by node, the sites that can be sampled. lost: by name, the reason why a site that took part cannot be sampled
    now. refused: by name, the reason why a site does not take part. known: by name, every site that was ever free.
    keys: by name, the public key (hexadecimal) of the node with that name; nodes without keys have no entry.
    classes: the class list that every site must have; None: not decided yet.

    with_weights: whether the answers of sites say which pre-trained weights they have.
    """

    def __init__(self, experiment: Experiment, with_weights: bool = True) -> None:
        self.free: dict[int, Site] = {}
        self.lost: dict[str, str] = dict.fromkeys(experiment.federation.sites or (), "it has not connected yet")
        self.refused: dict[str, str] = {}
        self.known: dict[str, Site] = {}
        self.keys: dict[str, str] = {}
        self.classes: tuple[str, ...] | None = None
        self._experiment = experiment
        self._bases = bases(experiment.model) if with_weights else {}
        self._online: dict[int, str] = {}
        self._name_of: dict[int, str] = {}  # by node, also after it has left: the registered name of its key
        self._node_of: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        self._answered: dict[int, Site | None] = {}  # nodes that are not accepted; a site if only its name is taken
        self._failures: Counter[int] = Counter()

    def gather(self, grid: Grid, count: int, seconds: float, tell: Callable[[str], None] = lambda _: None) -> None:
        """Wait until `count` sites are free, for at most `seconds`, or until no more sites can come. tell: called with
        the progress message whenever it changes."""
        deadline, said = time.monotonic() + seconds, ""
        while True:
            self.look(grid)
            if (words := self.in_words(count)) != said:
                said = words
                log.info("%s", words)
                tell(words)
            if len(self.free) >= count or not self.expecting(count) or time.monotonic() >= deadline:
                return
            time.sleep(2 * POLL_SECONDS)

    def settle(self) -> None:
        """Decide the classes if neither the experiment nor a test shard names them, and refuse sites with others.

        The classes of most free sites are chosen; in a tie, the first list in alphabetical order.
        """
        if self.classes is None and self.free:
            counted = Counter(site.classes for site in self.free.values())
            self.classes = min(counted, key=lambda classes: (-counted[classes], classes))
        for node, site in list(self.free.items()):
            if site.classes != self.classes:
                del self.free[node], self.known[site.name]
                self._answered[node] = None
                self._refuse(site.name, self._other_classes(site))

    def in_words(self, count: int) -> str:
        """The progress message: the ready sites, of `count`, and the state of the others, with reasons for refusals."""
        names = sorted(site.name for site in self.free.values())
        said = [f"{len(names)} of {count} sites are ready{': ' if names else ''}{few(names, NAMED)}"]
        if self._asked:
            said.append(f"{len(self._asked)} connected and reading their shards")
        if absent := count - len(self._online):
            said.append(f"{absent} not connected" if absent > 0 else f"{-absent} more connected than expected")
        if missing := sorted(self.lost.keys() | {name for name in self.known if name not in names}):
            said.append(f"missing: {', '.join(missing)}")
        if self.refused:
            said.append(f"refused: {few([f'{site} ({why})' for site, why in sorted(self.refused.items())], NAMED)}")
        return "; ".join(said)

    def expecting(self, count: int) -> bool:
        """Whether more sites may become free: one of `count` sites has not connected, is lost, or has not answered the
        query."""
        return bool(self.lost or self._asked or self._strangers()) or len(self._online) < count

    def look(self, grid: Grid) -> None:
        """Update the roster without waiting: note new and lost nodes, query new nodes, read the answers so far."""
        nodes = list(grid.get_nodes())
        self._online = {node.node_id: bytes(node.public_key).hex() for node in nodes}
        self._name_of |= {node.node_id: node.name for node in nodes if node.name}
        self._forget()
        self._ask(grid)
        for node, site in sorted(self._hear(grid), key=lambda answer: (answer[1].name, answer[0])):
            self._accept(node, site)

    def lose(self, node: int, reason: str) -> None:
        """Remove a site from the free sites, until it introduces itself again."""
        site = self.free.pop(node)
        _list(self.lost, site.name, reason)
        log.warning("site %s: %s", site.name, reason)

    def state(self) -> dict[str, Any]:
        """JSON values from which a resumed run restores its sites."""
        sites = [asdict(site) | _as_json(site) for site in self.known.values()]
        registered = set(self._name_of.values())
        return {"sites": sites, "keys": {name: key for name, key in self.keys.items() if name in registered}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the sites of `state`, which count as lost until they come back."""
        for said in state["sites"]:
            findings = {m: Findings(**found) for m, found in said["findings"].items()}
            changed = {
                "modalities": frozenset(said["modalities"]), "classes": tuple(said["classes"]), "findings": findings
            }  # fmt: skip
            self.known[said["name"]] = Site(**{**said, **changed})
            self.lost[said["name"]] = "it has not reconnected since the run was resumed"
        self.keys = dict(state["keys"])

    def _strangers(self) -> list[int]:
        """The connected nodes that need a query."""
        known = {*self.free, *self._asked.values(), *self._answered}
        return [node for node in self._online if node not in known]

    def _forget(self) -> None:
        for node in [node for node in self.free if node not in self._online]:
            self.lose(node, "its node is not connected")
        self._asked = {name: node for name, node in self._asked.items() if node in self._online}
        self._answered = {node: site for node, site in self._answered.items() if node in self._online}

    def _ask(self, grid: Grid) -> None:
        content = wire.record(for_clients(self._experiment))
        nodes = self._strangers()
        messages = [Message(content, dst_node_id=node, message_type="query", group_id="introduction") for node in nodes]
        if messages:
            ids = grid.push_messages(messages)
            self._asked |= {name: node for name, node in zip(ids, nodes, strict=True) if name}

    def _hear(self, grid: Grid) -> list[tuple[int, Site]]:
        """The sites of new introductions, and of earlier introductions whose name has become free."""
        claims = [(node, site) for node, site in self._answered.items() if site and not self._taken(site.name, node)]
        for node, _ in claims:
            del self._answered[node]
        replies = uploads(grid).pull(list(self._asked)) if self._asked else []
        for name, message in replies:
            node = self._asked.pop(name)
            if site := self._introduced(node, message):
                claims.append((node, site))
        return claims

    def _introduced(self, node: int, message: Message | str) -> Site | None:
        """The site that a reply introduces, or None if it is a refusal or an error."""
        if isinstance(message, str) or message.has_error():
            self._failures[node] += 1
            if self._failures[node] >= INTRODUCTIONS:
                self._answered[node] = None
            self._refuse(self._called(node), message if isinstance(message, str) else why(message))
            return None
        self._failures.pop(node, None)
        try:
            answer = read_introduction(wire.read_body(message))
        except WireError as error:
            answer = Refusal(site=self._called(node), error=str(error))
        if isinstance(answer, Refusal):
            self._answered[node] = None
            self._refuse(self._refused_as(node, answer.site), answer.error)
            return None
        return answer

    def _refused_as(self, node: int, name: str) -> str:
        """The name in the list of refusals. It includes the node's number if the name belongs to another site."""
        holder = self._node_of.get(name, node)
        own = self._name_of.get(node, name)
        return name if holder == node and own == name else f"{name} (node {node})"

    def _called(self, node: int) -> str:
        """The name of a node's site if it is known, else the node's number."""
        return next((name for name, holder in self._node_of.items() if holder == node), f"node {node}")

    def _accept(self, node: int, site: Site) -> None:
        key = self._online[node]
        self._answered[node] = None
        if self.classes is not None and site.classes != self.classes:
            self._refuse(site.name, self._other_classes(site))
        elif (expected := self._experiment.federation.sites) is not None and site.name not in expected:
            self._refuse(site.name, "federation.sites does not list it")
        elif not site.modalities <= set(self._experiment.modalities):
            self._refuse(site.name, f"the experiment does not have all of its modalities, {sorted(site.modalities)}")
        elif differs := unlike_bases(self._bases, site):
            self._refuse(site.name, differs)
        elif not self._may_be_called(node, key, site.name):
            self._refuse(f"{site.name} (node {node})", "this name belongs to another key")
        elif self._taken(site.name, node):
            self._answered[node] = site
            self._refuse(f"{site.name} (node {node})", "another site has this name")
        else:
            self._welcome(node, site)

    def _may_be_called(self, node: int, key: str, name: str) -> bool:
        """Whether a node may use a name: the registered name of its key, or else the first name that the key used, if
        no other key used that name before."""
        if registered := self._name_of.get(node):
            return registered == name
        if any(other == name for other in self._name_of.values()):
            return False
        return self.keys.get(name, key) == key and all(n == name for n, k in self.keys.items() if key and k == key)

    def _other_classes(self, site: Site) -> str:
        return f"its classes differ from the federation's: {unlike(site.classes, self.classes or ())}"

    def _welcome(self, node: int, site: Site) -> None:
        del self._answered[node]
        self.free[node] = self.known[site.name] = site
        self._node_of[site.name] = node
        if key := self._online[node]:
            self.keys[site.name] = key
        self.lost.pop(site.name, None)
        for name in (site.name, f"{site.name} (node {node})", f"node {node}"):
            self.refused.pop(name, None)
        log.info("site %s: %s, %d examples", site.name, "+".join(sorted(site.modalities)), site.num_examples)

    def _taken(self, name: str, node: int) -> bool:
        """Whether another connected node has this name."""
        holder = self._node_of.get(name, node)
        return holder != node and holder in self._online

    def _refuse(self, site: str, reason: str) -> None:
        if self.refused.get(site) != reason:
            log.warning("site %s is refused: %s", site, reason)
        _list(self.refused, site, reason)
        self.lost.pop(site, None)


def _list(reasons: dict[str, str], site: str, reason: str) -> None:
    reasons[site] = reason
    while len(reasons) > LISTED:
        del reasons[next(iter(reasons))]


def _as_json(site: Site) -> dict[str, Any]:
    """The fields of a site that need a conversion for JSON."""
    findings = {m: found.model_dump() for m, found in site.findings.items()}
    return {"modalities": sorted(site.modalities), "findings": findings, "tables": {}}


def listed(reasons: Mapping[str, str]) -> str:
    """Sites with reasons, one line per site, for the end of a message."""
    return "".join(f"\n  - {site}: {why}" for site, why in sorted(reasons.items()))
