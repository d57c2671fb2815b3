"""Writing in one place and reading in another."""


class Elsewhere:
    """A ``Directory`` that writes in one place and reads in another: a write is seen soon, not at once."""

    def __init__(self, writes, reads):
        self._writes, self._reads = writes, reads
        self.source = reads.source
        self.lookup, self.watch = reads.lookup, reads.watch
        self.register, self.registered, self.beat = writes.register, writes.registered, writes.beat
        self.maintenance, self.deregister = writes.maintenance, writes.deregister

    async def close(self):
        await self._reads.close()
        await self._writes.close()
