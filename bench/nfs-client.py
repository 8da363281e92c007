#!/usr/bin/env python3
"""Measures a directory that a kernel has mounted over NFS, the way its users feel it. Runs in the guest of `npm run bench:nfs`.

usage: nfs-client.py DIR --files N --mib N --clients N --seconds S --evict FILE

Prints one line of JSON. Before each row of reads the caches of the client are dropped. `--evict FILE`: before cold reads it writes that file and waits until somebody has removed it (and made the server forget what it keeps of the contents).
"""
import argparse, json, mmap, os, random, shutil, sys, time

p = argparse.ArgumentParser()
p.add_argument("dir")
p.add_argument("--files", type=int, default=1000)
p.add_argument("--mib", type=int, default=128)
p.add_argument("--clients", type=int, default=8)
p.add_argument("--seconds", type=float, default=3)
p.add_argument("--evict")
a = p.parse_args()
top = os.path.join(a.dir, "bench-%d" % os.getpid())
os.mkdir(top)
results = {}

def forget(which):
    """3: everything, 2: names and attributes alone."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f: f.write(which)

def timed(fn):
    start = time.perf_counter(); fn(); return time.perf_counter() - start

def together(count, fn):
    """fn(k) in `count` processes at once; the seconds from their start together to the last one's end."""
    ready, go = os.pipe(), os.pipe()
    pids = []
    for k in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                os.close(go[1]); os.write(ready[1], b"."); os.read(go[0], 1); fn(k); os._exit(0)
            except BaseException as error:
                print("process %d: %s" % (k, error), file=sys.stderr); os._exit(1)
        pids.append(pid)
    for _ in pids: os.read(ready[0], 1)
    start = time.perf_counter(); os.close(go[1]); os.close(go[0])
    ends = [os.waitpid(pid, 0)[1] for pid in pids]
    took = time.perf_counter() - start
    os.close(ready[0]); os.close(ready[1])
    if any(ends): raise SystemExit("a client failed")
    return took

def create(names):
    for n in names: os.close(os.open(n, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))

def stats(names):
    for n in names: os.stat(n)

def direct_page(fill):
    page = mmap.mmap(-1, 4096)
    page.write(fill)
    return page

def random_io(path, is_write, seed):
    """4 KiB at random places past the client's cache for some seconds; how many."""
    rng = random.Random(seed)
    page = direct_page(os.urandom(4096))
    fd = os.open(path, (os.O_RDWR if is_write else os.O_RDONLY) | os.O_DIRECT)
    blocks, done, end = a.mib * 256, 0, time.perf_counter() + a.seconds
    while time.perf_counter() < end:
        at = rng.randrange(blocks) * 4096
        if is_write: os.pwritev(fd, [page], at)
        else: os.preadv(fd, [page], at)
        done += 1
    os.close(fd)
    return done

def random_together(path, is_write):
    counts = os.path.join("/tmp", "counts-%d" % os.getpid())
    def one(k):
        done = random_io(path, is_write, k + 10)
        with open("%s-%d" % (counts, k), "w") as f: f.write(str(done))
    took = together(a.clients, one)
    total = 0
    for k in range(a.clients):
        with open("%s-%d" % (counts, k)) as f: total += int(f.read())
        os.unlink("%s-%d" % (counts, k))
    return total / took

def rate(name, count, seconds): results[name] = round(count / seconds, 1)

try:
    many = "%d processes" % a.clients
    one_folder = os.path.join(top, "one"); os.mkdir(one_folder)
    names = ["%s/f%05d" % (one_folder, i) for i in range(a.files)]
    rate("create /s, 1 process", a.files, timed(lambda: create(names)))
    forget("2")
    rate("stat /s, 1 process", a.files, timed(lambda: stats(names)))
    folders = [os.path.join(top, "p%d" % k) for k in range(a.clients)]
    for folder in folders: os.mkdir(folder)
    each = a.files // 2
    of = lambda k: ["%s/f%05d" % (folders[k], i) for i in range(each)]
    rate("create /s, " + many, each * a.clients, together(a.clients, lambda k: create(of(k))))
    forget("2")
    rate("stat /s, " + many, each * a.clients, together(a.clients, lambda k: stats(of(k))))
    forget("2")
    rate("list with attributes, entries /s", a.files, timed(lambda: sum(1 for e in os.scandir(one_folder) if e.stat())))
    rate("rename /s, 1 process", a.files, timed(lambda: [os.rename(n, n + "x") for n in names]))
    rate("remove /s, 1 process", a.files, timed(lambda: [os.unlink(n + "x") for n in names]))

    big = os.path.join(top, "big"); block = os.urandom(1 << 20)
    def write():
        fd = os.open(big, os.O_CREAT | os.O_WRONLY, 0o644)
        for _ in range(a.mib): os.write(fd, block)
        os.fsync(fd); os.close(fd)
    def read():
        fd = os.open(big, os.O_RDONLY)
        while os.read(fd, 1 << 20): pass
        os.close(fd)
    rate("sequential write, one fsync, MiB/s", a.mib, timed(write))
    forget("3")
    rate("sequential read, MiB/s", a.mib, timed(read))
    if a.evict:
        forget("3")
        with open(a.evict, "w") as f: f.write("please")
        while os.path.exists(a.evict): time.sleep(0.05)
        rate("sequential read, server cold, MiB/s", a.mib, timed(read))
    forget("3")
    results["random 4 KiB read /s, 1 process"] = round(random_io(big, False, 1) / a.seconds, 1)
    results["random 4 KiB read /s, " + many] = round(random_together(big, False), 1)
    if a.evict:
        forget("3")
        with open(a.evict, "w") as f: f.write("please")
        while os.path.exists(a.evict): time.sleep(0.05)
        results["random 4 KiB read, server cold, /s, 1 process"] = round(random_io(big, False, 2) / a.seconds, 1)
    results["random 4 KiB write, each stable, /s, 1 process"] = round(random_io(big, True, 3) / a.seconds, 1)
    results["random 4 KiB write, each stable, /s, " + many] = round(random_together(big, True), 1)
    def rewrite(count=2000):
        rng = random.Random(5)
        fd = os.open(big, os.O_WRONLY)
        for _ in range(count): os.pwrite(fd, block[:4096], rng.randrange(a.mib * 256) * 4096)
        os.fsync(fd); os.close(fd)
    rate("random 4 KiB write, one fsync, /s", 2000, timed(rewrite))
finally:
    shutil.rmtree(top, ignore_errors=True)
print(json.dumps(results))
