"""Finds shards whose classes differ, so that they cannot belong to one federation."""

from collections.abc import Sequence

from common.data.shard import Shard
from deploy.shards.inspection.labels import NAMED
from server.sites.attention import unlike


def unlike_classes(shards: Sequence[Shard]) -> list[str]:
    """A message for each shard whose classes differ from those of the first shard. The last message has the remedy."""
    first, *others = shards
    names = NAMED[first.info.task][1]
    differ = [shard for shard in others if shard.info.classes != first.info.classes]
    found = [
        f"the {names} of {shard.folder.name} differ from those of {first.folder.name}: "
        f"{unlike(shard.info.classes, first.info.classes)}"
        for shard in differ
    ]
    if found:
        every = dict.fromkeys(name for shard in (first, *differ) for name in shard.info.classes)
        found[-1] += f"; import all sites again with --classes '{','.join(sorted(every))}'"
    return found
