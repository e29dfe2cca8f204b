"""A file system in memory that forgets at a power loss what a real one may forget.

Each file has a page cache and what of it is on the device, each directory its names and those on
the device. Reads, writes and mappings see the cache; :meth:`PowerLossFileSystem.crash` makes the
file system that is found after a power loss: all that was synced, and of the rest whatever chance
keeps. :meth:`PowerLossFileSystem.write_back` is the kernel, which may put any of it on the device
at any time.

Of a file, without a sync:

* its size may be any that it had since, or the synced one, in which case it is as if whatever came
  later never happened, but for data written to pages that were there all the time;
* each page may be as it is, or as it was on the device; one in the whole file system is torn, its
  beginning new and its rest old;
* space that the size covers, and that no page survived in, is zeros.

Of a directory: changes of names survive up to some moment, each directory's own or the same for all
(a file system with a journal), or any of them do (one without); each is atomic. A file's content
says nothing of its name, nor the other way round.

What no test of its own has to look for raises :class:`Impossible`: a touch of a mapping past the
end of the file or over a hole of a full disk, which would be SIGBUS, and use of a closed file.
"""

import errno
import mmap
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from kavka.storage.fs import PAGE_SIZE, Buffer, DiskSpace, File, FileStat, FileSystem

_MAPPED: Final = 1 << 26  # bytes of cache of a mapped file; only what is touched is there
_UNLIMITED: Final = 1 << 50


class Killed(BaseException):
    """The process ends here: no code of it may go on, not even to tidy up."""


class Impossible(AssertionError):
    """What would be the death of a real process, or is a bug of it in any case."""


class Inode:
    """A file: its cache, and what is on the device."""

    def __init__(self, now_ms: int) -> None:
        self.cache: bytearray | mmap.mmap = bytearray()
        self.size = 0
        self.mtime_ms = now_ms
        self.disk = b""  # content as of the last sync, and what was written back since
        self.sizes: list[int] = []  # that the file had since, in order
        self.blocks: set[int] = set()  # pages with reserved space; a hole has none
        self.holder: MemoryFile | None = None  # of the lock

    def resize(self, size: int) -> None:
        """Cut or grow with zeros, in the cache."""
        self.check()
        if size < self.size:
            self.cache[size : self.size] = bytes(self.size - size)
            self.blocks = {page for page in self.blocks if page * PAGE_SIZE < size}
        elif size > len(self.cache):
            if isinstance(self.cache, mmap.mmap):
                raise Impossible("a mapped file grows too large for this test")
            self.cache += bytes(max(size, 2 * len(self.cache)) - len(self.cache))
        if size != self.size:
            self.size = size
            self.sizes.append(size)

    def check(self) -> None:
        """See that nothing was written through a mapping where there is no file."""
        if isinstance(self.cache, mmap.mmap):
            end = -(-self.size // PAGE_SIZE) * PAGE_SIZE
            if self.cache[end : end + (1 << 19)].strip(b"\0"):
                raise Impossible("SIGBUS: a write through a mapping past the end of the file")

    def mappable(self) -> mmap.mmap:
        """Have the cache in one place for good, so that views of it stay true."""
        if not isinstance(self.cache, mmap.mmap):
            fixed = mmap.mmap(-1, _MAPPED)
            fixed[: self.size] = self.cache[: self.size]
            self.cache = fixed
        return self.cache

    def content(self) -> bytes:
        self.check()
        return bytes(self.cache[: self.size])

    def sync(self) -> None:
        self.disk = self.content()
        self.sizes.clear()

    def dirty_pages(self) -> list[int]:
        """Pages whose cache is not what the device has."""
        content, disk = self.content(), self.disk
        if content == disk:
            return []
        return [
            at // PAGE_SIZE
            for at in range(0, len(content), PAGE_SIZE)
            if content[at : at + PAGE_SIZE] != disk[at : at + PAGE_SIZE]
        ]

    def survivor(
        self, rng: random.Random, kept: float, torn: int | None = None
    ) -> tuple[bytes, int]:
        """What may be on the device, and how many of ``sizes`` are true there.

        Each changed page is new with probability ``kept``; of page ``torn`` only a beginning is.
        """
        # The first and the last are the likeliest, as in life.
        count = len(self.sizes)
        known = rng.choice((0, count, rng.randint(0, count)))
        sizes = [len(self.disk), *self.sizes[:known]]
        size = sizes[-1]
        image = bytearray(self.disk[: min(sizes)])  # what was cut meanwhile is gone
        image += bytes(size - len(image))
        content = self.content()
        freed = min(self.sizes[known:], default=len(content))
        for page in self.dirty_pages():
            start = page * PAGE_SIZE
            if start >= freed:  # cut meanwhile: new data went to another place on the device
                continue
            new = content[start : start + PAGE_SIZE].ljust(PAGE_SIZE, b"\0")
            if page == torn:
                new = new[: rng.randrange(PAGE_SIZE)]
            elif rng.random() >= kept:
                continue
            new = new[: max(0, size - start)]
            image[start : start + len(new)] = new
        return bytes(image), known


class Directory:
    """Names, and those on the device."""

    def __init__(self, now_ms: int) -> None:
        self.mtime_ms = now_ms
        self.names: dict[str, Inode | Directory] = {}
        self.disk: dict[str, Inode | Directory] = {}
        self.changes: list[Change] = []  # since the last sync, in order

    def apply(self, change: "Change") -> None:
        change.apply(self.names)
        self.changes.append(change)

    def sync(self) -> None:
        self.disk = dict(self.names)
        self.changes.clear()

    def survivor(
        self, keeps: Callable[["Change"], bool]
    ) -> tuple[dict[str, "Inode | Directory"], list["Change"]]:
        """Names that may be on the device, and the changes that are not."""
        names = dict(self.disk)
        lost = []
        for change in self.changes:
            if not (keeps(change) and change.apply(names)):
                lost.append(change)
        return names, lost


class Change:
    """A name is given (``target`` to ``node``, which loses ``source`` if it had it), or taken."""

    __slots__ = ("node", "number", "source", "target")

    def __init__(
        self, number: int, node: "Inode | Directory", source: str | None, target: str | None
    ) -> None:
        self.number = number  # in order over all directories
        self.node = node
        self.source = source
        self.target = target

    def apply(self, names: dict[str, "Inode | Directory"]) -> bool:
        """Do it; False when it makes no sense without one before it that was lost."""
        if self.source is not None:
            if names.get(self.source) is not self.node:
                return False
            del names[self.source]
        if self.target is not None:
            names[self.target] = self.node
        return True


class MemoryFile(File):
    """An open file in memory. It has no descriptor."""

    __slots__ = ("inode", "writable")

    def __init__(self, path: str, inode: Inode, writable: bool) -> None:
        super().__init__(-1, path)
        self.inode: Inode | None = inode
        self.writable = writable

    def close(self) -> None:
        if self.inode is not None and self.inode.holder is self:
            self.inode.holder = None
        self.inode = None


class PowerLossFileSystem(FileSystem):
    """See the module. Paths are absolute.

    ``calls`` counts calls; ``kill_at`` ends the process at that one (:class:`Killed`, then and at
    all that follow), ``failures`` has errors by number of call. ``capacity`` is in bytes.
    """

    def __init__(self, now_ms: Callable[[], int] = lambda: 0, capacity: int = _UNLIMITED) -> None:
        self.root = Directory(0)
        self.now_ms = now_ms
        self.capacity = capacity
        self.calls = 0
        self.kill_at: int | None = None
        self.failures: dict[int, int] = {}
        self.trace: list[str] | None = None  # of calls, for who looks for a bug
        self.on_kill: random.Random | None = None  # how much of a write is done at a kill
        self._changes = 0
        self.dead = False

    # -- the world around ---------------------------------------------------------------------

    def restart(self) -> None:
        """The process was killed, the machine lives: nothing in the cache is lost."""
        self.dead = False
        self.kill_at = None
        self.failures.clear()
        for inode in self._files(self.root):
            inode.check()
            inode.holder = None

    def crash(self, rng: random.Random, *, ordered: bool = True) -> "PowerLossFileSystem":
        """What is there after a power loss at this moment; this file system stays as it is.

        ``ordered`` is the kind of directories.
        """
        after = PowerLossFileSystem(self.now_ms, self.capacity)
        after._changes = self._changes
        kept = rng.choice((0.0, 0.1, 0.5, 0.5, 0.9, 1.0))
        keeps = self._keeps(rng, ordered)
        dirty = [inode for inode in self._files(self.root) if inode.dirty_pages()]
        torn = rng.choice(dirty) if dirty and rng.random() < 0.8 else None
        copies: dict[int, Inode | Directory] = {}

        def copy(node: Inode | Directory) -> Inode | Directory:
            known = copies.get(id(node))
            if known is not None:
                return known
            made: Inode | Directory
            if isinstance(node, Directory):
                made = copies[id(node)] = Directory(node.mtime_ms)
                names, _ = node.survivor(keeps)
                made.names = {name: copy(child) for name, child in names.items()}
                made.sync()
                return made
            made = copies[id(node)] = Inode(node.mtime_ms)
            page = rng.choice(node.dirty_pages()) if node is torn else None
            image, _ = node.survivor(rng, kept, page)
            made.resize(len(image))
            made.cache[: len(image)] = image
            made.sync()
            # Whether a hole is one is not known; space that data is in is reserved.
            made.blocks = set(range(-(-len(image) // PAGE_SIZE)))
            return made

        root = copy(self.root)
        assert isinstance(root, Directory)
        after.root = root
        return after

    def write_back(self, rng: random.Random) -> None:
        """The kernel writes some of what is dirty to the device."""
        for inode in self._files(self.root):
            if rng.random() < 0.5:
                image, known = inode.survivor(rng, rng.choice((0.3, 1.0)))
                inode.disk = image
                del inode.sizes[:known]
        keeps = self._keeps(rng, True)
        for directory in self._directories(self.root):
            directory.disk, directory.changes = directory.survivor(keeps)

    def _keeps(self, rng: random.Random, ordered: bool) -> Callable[[Change], bool]:
        directories = [*self._directories(self.root)]
        if not ordered:
            share = rng.choice((0.2, 0.5, 0.8))
            return lambda change: rng.random() < share
        pending = [one.number for each in directories for one in each.changes]
        if rng.random() < 0.5:  # one journal for all
            last = rng.choice([0, *pending])
            return lambda change: change.number <= last
        kept: set[Change] = set()
        for each in directories:
            kept.update(each.changes[: rng.randint(0, len(each.changes))])
        return lambda change: change in kept

    def _directories(self, top: Directory) -> Iterator[Directory]:
        """All directories, also those whose removal is not on the device yet."""
        seen: dict[int, Directory] = {}

        def walk(one: Directory) -> None:
            if id(one) not in seen:
                seen[id(one)] = one
                for child in (*one.names.values(), *one.disk.values()):
                    if isinstance(child, Directory):
                        walk(child)
                for change in one.changes:
                    if isinstance(change.node, Directory):
                        walk(change.node)

        walk(top)
        return iter(seen.values())

    def _files(self, top: Directory) -> Iterator[Inode]:
        """All files, also those whose removal is not on the device yet."""
        seen: dict[int, Inode] = {}
        for directory in self._directories(top):
            changed = (change.node for change in directory.changes)
            for node in (*directory.names.values(), *directory.disk.values(), *changed):
                if isinstance(node, Inode):
                    seen[id(node)] = node
        return iter(seen.values())

    # -- every call ---------------------------------------------------------------------------

    def _enter(self, what: str, path: str) -> bool:
        """Count a call; True when the process is to be killed in the middle of it."""
        if self.dead:
            raise Killed
        self.calls += 1
        if self.trace is not None:
            self.trace.append(f"{self.calls} {what} {path}")
        if self.calls == self.kill_at:
            self.dead = True
            if self.on_kill is not None and what in ("pwrite", "pwritev"):
                return True
            raise Killed
        number = self.failures.pop(self.calls, None)
        if number is not None:
            raise OSError(number, os.strerror(number), path)
        return False

    def _inode(self, file: File, write: bool = False) -> Inode:
        assert isinstance(file, MemoryFile)
        if file.inode is None:
            raise Impossible(f"use of a closed file: {file.path}")
        if write and not file.writable:
            raise Impossible(f"a write to a file opened for reading: {file.path}")
        return file.inode

    def _find(self, path: str) -> Inode | Directory | None:
        node: Inode | Directory | None = self.root
        for part in path.split("/"):
            if part:
                if not isinstance(node, Directory):
                    return None
                node = node.names.get(part)
        return node

    def _parent(self, path: str) -> tuple[Directory, str]:
        above, name = os.path.split(path)
        assert path.startswith("/") and name, path
        found = self._find(above)
        if not isinstance(found, Directory):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found, name

    def _change(
        self, where: Directory, node: Inode | Directory, source: str | None, target: str | None
    ) -> None:
        self._changes += 1
        where.apply(Change(self._changes, node, source, target))
        where.mtime_ms = self.now_ms()

    def _take_space(self, inode: Inode, start: int, end: int, path: str) -> int:
        """Reserve pages for ``[start, end)``; return up to where there is space."""
        wanted = [
            page
            for page in range(start // PAGE_SIZE, -(-end // PAGE_SIZE))
            if page not in inode.blocks
        ]
        if wanted and self.capacity < _UNLIMITED:
            free = self.disk_space_free() // PAGE_SIZE
            if len(wanted) > free:
                missing = wanted[free]
                inode.blocks.update(wanted[:free])
                return max(start, missing * PAGE_SIZE)
        inode.blocks.update(wanted)
        return end

    def disk_space_free(self) -> int:
        def pages(node: Inode | Directory) -> int:
            if isinstance(node, Inode):
                return len(node.blocks)
            return sum(map(pages, node.names.values()))

        return max(0, self.capacity - pages(self.root) * PAGE_SIZE)

    # -- open files ---------------------------------------------------------------------------

    def open(
        self, path: str, *, write: bool = False, create: bool = False, exclusive: bool = False
    ) -> File:
        self._enter("create" if create else "open", path)
        where, name = self._parent(path)
        found = where.names.get(name)
        if isinstance(found, Directory):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if found is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            found = Inode(self.now_ms())
            self._change(where, found, None, name)
        elif create and exclusive:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return MemoryFile(path, found, write)

    def pread(self, file: File, size: int, offset: int) -> bytes:
        self._enter("pread", file.path)
        inode = self._inode(file)
        return bytes(inode.cache[offset : min(offset + size, inode.size)])

    def pwrite(self, file: File, data: Buffer, offset: int) -> None:
        killed = self._enter("pwrite", f"{file.path} {offset}+{len(data)}")
        self._write(file, memoryview(data).cast("B"), offset, killed)

    def pwritev(self, file: File, buffers: Sequence[Buffer], offset: int) -> None:
        killed = self._enter("pwritev", f"{file.path} {offset}")
        self._write(file, memoryview(b"".join(buffers)), offset, killed)

    def _write(self, file: File, data: memoryview, offset: int, killed: bool) -> None:
        inode = self._inode(file, write=True)
        if killed:
            assert self.on_kill is not None
            data = data[: self.on_kill.randint(0, len(data))]
        end = offset + len(data)
        fits = self._take_space(inode, offset, end, file.path)
        data = data[: max(0, fits - offset)]
        if data:
            inode.resize(max(inode.size, offset + len(data)))
            inode.cache[offset : offset + len(data)] = data
        inode.mtime_ms = self.now_ms()
        if killed:
            raise Killed
        if fits < end:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.path)

    def allocate(self, file: File, offset: int, length: int) -> None:
        self._enter("allocate", f"{file.path} {offset}+{length}")
        inode = self._inode(file, write=True)
        before = set(inode.blocks)
        if self._take_space(inode, offset, offset + length, file.path) < offset + length:
            inode.blocks = before
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.path)
        inode.resize(max(inode.size, offset + length))

    def truncate(self, file: File, size: int) -> None:
        self._enter("truncate", f"{file.path} {size}")
        inode = self._inode(file, write=True)
        inode.resize(size)
        inode.mtime_ms = self.now_ms()

    def fdatasync(self, file: File) -> None:
        self._enter("fdatasync", file.path)
        self._inode(file).sync()

    def file_size(self, file: File) -> int:
        self._enter("file_size", file.path)
        return self._inode(file).size

    def map(self, file: File, length: int, *, offset: int = 0, write: bool = False) -> memoryview:
        self._enter("map", file.path)
        inode = self._inode(file, write=write)
        assert offset % PAGE_SIZE == 0
        if offset + length > inode.size:
            raise Impossible(f"a mapping reaches past the end of {file.path}")
        pages = range(offset // PAGE_SIZE, -(-(offset + length) // PAGE_SIZE))
        if write and not inode.blocks.issuperset(pages):
            raise Impossible(f"SIGBUS on a full disk: a writable mapping over holes of {file.path}")
        view = memoryview(inode.mappable())[offset : offset + length]
        return view if write else view.toreadonly()

    def is_cached(self, file: File, offset: int) -> bool:
        return True

    def try_lock(self, file: File) -> bool:
        self._enter("try_lock", file.path)
        inode = self._inode(file)
        assert isinstance(file, MemoryFile)
        if inode.holder is None:
            inode.holder = file
        return inode.holder is file

    # -- names --------------------------------------------------------------------------------

    def rename(self, source: str, target: str) -> None:
        self._enter("rename", f"{source} {os.path.basename(target)}")
        where, name = self._parent(source)
        there, new_name = self._parent(target)
        assert where is there, "files are renamed within a directory only"
        node = where.names.get(name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        replaced = where.names.get(new_name)
        if isinstance(replaced, Directory) and replaced.names:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), target)
        self._change(where, node, name, new_name)

    def unlink(self, path: str, *, missing_ok: bool = False) -> None:
        self._enter("unlink", path)
        where, name = self._parent(path)
        node = where.names.get(name)
        if isinstance(node, Inode):
            self._change(where, node, name, None)
        elif not missing_ok:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def listdir(self, path: str) -> list[str]:
        self._enter("listdir", path)
        found = self._find(path)
        if not isinstance(found, Directory):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return sorted(found.names)

    def mkdir(self, path: str, *, parents: bool = False) -> None:
        self._enter("mkdir", path)
        if self._find(path) is not None:
            return
        if parents and self._find(os.path.dirname(path)) is None:
            self.mkdir(os.path.dirname(path), parents=True)
        where, name = self._parent(path)
        self._change(where, Directory(self.now_ms()), None, name)

    def rmdir(self, path: str) -> None:
        self._enter("rmdir", path)
        where, name = self._parent(path)
        node = where.names.get(name)
        if not isinstance(node, Directory):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if node.names:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        self._change(where, node, name, None)

    def stat(self, path: str) -> FileStat | None:
        self._enter("stat", path)
        found = self._find(path)
        if found is None:
            return None
        is_dir = isinstance(found, Directory)
        return FileStat(0 if isinstance(found, Directory) else found.size, found.mtime_ms, is_dir)

    def set_mtime(self, path: str, mtime_ms: int) -> None:
        self._enter("set_mtime", path)
        found = self._find(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        found.mtime_ms = mtime_ms

    def sync_dir(self, path: str) -> None:
        self._enter("sync_dir", path)
        found = self._find(path)
        if not isinstance(found, Directory):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        found.sync()

    def disk_space(self, path: str) -> DiskSpace:
        self._enter("disk_space", path)
        return DiskSpace(self.capacity, self.disk_space_free())
