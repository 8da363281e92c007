/** Bounds of the NFS door, each with its reason. */

/** Largest READ and WRITE (FSINFO rtmax, wtmax): what Linux clients ask for at most. */
export const maxTransferBytes = 1 << 20;

/** Largest record: a WRITE with the longest credential, handle and head. */
export const maxRecordBytes = maxTransferBytes + 4096;

/** Linux and libnfs send one fragment; whoever sends many tiny ones wants to see what they cost. */
export const maxFragments = 64;

/** RFC 5531: the body of a credential or verifier. */
export const maxAuthBytes = 400;

/** RFC 5531, appendix A: authsys_parms. */
export const maxMachineNameBytes = 255;
export const maxGroups = 16;

/** RFC 1813: NFS3_FHSIZE. */
export const maxHandleBytes = 64;

/** Names and symlink targets that are decoded at all; what is too long for the volume is its to say. */
export const maxNameBytes = 1024;
export const maxTargetBytes = 4096;

/** Files that are kept open though nobody uses them at the moment: a client reads and writes a few at a time. */
export const maxOpenFiles = 1024;
/** How long: between two reads of one program, shorter than anybody notices that a deleted file still takes space. */
export const idleFileMs = 5000;
export const sweepMs = 1000;

/** Replies that are kept for calls that come again: clients send again what was under way when their connection broke, some hundred calls each. */
export const maxReplyCacheEntries = 4096;
export const maxReplyCacheBytes = 4 << 20;
/** What of a call tells it from others with the same number and length: all but the contents that a WRITE brings. The kernel's own server takes 256 bytes; the longest credential and handle end before this. */
export const cacheKeyBytes = 1024;

/** How long calls count as sent again that a predecessor has carried out: Linux connects again at least every five minutes. */
export const pastCallsMs = 600_000;

/** Contents of large calls and replies lie in buffers that are used again: fresh memory for each would keep the collector busy for a quarter of the time. Of each kind, as many bytes are kept. */
export const pooledFromBytes = 32 << 10;
export const keptPoolBytes = 16 << 20;

/** How long figures of free space are given again: asking the disks takes a while, and clients ask at every df. */
export const spaceFreshMs = 500;

/** Entries asked of the volume in one step of a directory read. */
export const maxDirectoryBatch = 256;

/** Largest directory reply, whatever a client has room for. */
export const maxDirectoryReplyBytes = 256 << 10;

/** What a directory reply needs besides its entries: attributes, verifier, end. */
export const directoryReplyHeadBytes = 4 + 88 + 8 + 4 + 4;

/** Paths of MOUNT (RFC 1813: MNTPATHLEN). */
export const maxPathBytes = 1024;
/** What clients say that they have mounted: for people to look at. */
export const maxMounts = 1024;

/** Connections at once. Clients have one each, or a few (nconnect); a connection costs some tens of kilobytes, and one that has begun a record up to a megabyte: 128 MiB if all of them do that at once. */
export const maxConnections = 128;

/** How long an end waits for calls under way: a disk may hang, and those who wait for the end (an upgrade) must not. */
export const stopMs = 20_000;

/** Calls under way of one connection: Linux has up to 128 slots; of all: as many as the FUSE door has. */
export const maxCallsOfConnection = 64;
export const maxCalls = 512;
/** Bytes of their arguments. */
export const maxCallBytes = 32 << 20;
/** Bytes of replies that calls under way may have, and of those that clients have not taken: a call begins when there is room for its reply. Of one connection: some of the largest; of all: a part of the memory that a daemon may take. */
export const maxReplyBytesOfConnection = 8 << 20;
export const maxReplyBytes = 64 << 20;
/** What is set aside for a reply that does not depend on a count: the longest symlink target with everything around it. */
export const plainReplyBytes = 8192;
/** While there is no room for others, a client that has taken nothing for so long loses its connection: it connects again. A megabyte in that time is 1.7 Mbit/s. */
export const slowClientMs = 5000;
/** Datagrams being answered: each is a look into a table. */
export const maxDatagramCalls = 32;

/** A client that does not send the rest of a record, or does not take a reply, for so long is gone. */
export const stuckMs = 60_000;
/** Clients close connections that they do not use after five to six minutes. */
export const idleConnectionMs = 30 * 60_000;

/** Faults that strangers can cause are logged so often, then every thousandth. */
export const fullLogs = 20;

// ── locks ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** LM_MAXSTRLEN and MAXNETOBJ_SZ of NLM (XNFS); what is longer than a host's name is refused by whoever keeps it. */
export const maxLockNameBytes = 1024;
export const maxLockObjectBytes = 1024;

/** How soon a registration with rpcbind is looked after: clients that mount meanwhile try for two minutes. */
export const registerAgainMs = 30_000;

/** How long a program of this machine may take to say that it is there. */
export const pingMs = 2000;

/** Requests of one client that wait: each of its processes waits for one. */
export const maxWaitingOfClient = 1000;
/** Of all clients: some hundred bytes each, and each is told by a call of its own. */
export const maxWaiting = 10_000;
/** Grants that are being told at once; the others have their lock already, and hear of it in their turn. */
export const maxGrantCalls = 64;

/** A call that tells of a granted lock, from asking for the port to the answer. */
export const grantMs = 5000;
/** Pauses before it is tried again. Linux asks again by itself after 30 s. */
export const grantAgainMs: readonly number[] = [1000, 3000, 10_000, 20_000];

/** Results of asynchronous calls under way: who asks faster loses some, and asks again. */
export const maxAsyncResults = 64;

/** One notice of a restart, and when it is tried again; after that long a client that was not reached has to find out by itself, as with sm-notify of Linux. */
export const noticeMs = 5000;
export const noticeAgainMs = { first: 1000, most: 60_000 } as const;
export const noticeForMs = 900_000;
/** Notices under way at once. */
export const maxNotices = 16;

/** A datagram that was not answered is sent again. */
export const datagramAgainMs = 1000;

/** How long a client is told to come later when an open elsewhere denies what it does: Linux tries every five seconds, and short opens are closed by then. */
export const deniedLaterMs = 15_000;
/** A denial as long after the one before is another one. */
export const sameDenialMs = 60_000;
/** Denials that are remembered (some 100 bytes each): who is forgotten waits once more. */
export const maxDenied = 4096;
