/** UNIX stream sockets. */
import fs from "node:fs";
import net from "node:net";
import { FsError, toFsError } from "../../base/errors.ts";
import { RealConnection } from "./connection.ts";
import type { Connection, Listener, Sockets } from "../interface.ts";
import { realLimits } from "./limits.ts";

export class RealSockets implements Sockets {
	async listen(path: string, onConnection: (connection: Connection) => void): Promise<Listener> {
		checkPath(path);
		await removeStale(path);
		const open = new Set<net.Socket>();
		const server = net.createServer((socket) => {
			open.add(socket);
			socket.once("close", () => open.delete(socket));
			onConnection(new RealConnection(socket));
		});
		await bind(server, path);
		const close = async () => {
			const closed = new Promise<void>((resolve) => server.close(() => resolve()));
			for (const socket of open) socket.destroy();
			await closed;
		};
		return { close };
	}

	async listenPort(port: number, onConnection: (connection: Connection) => void): Promise<Listener & { readonly port: number }> {
		const open = new Set<net.Socket>();
		const server = net.createServer((socket) => {
			open.add(socket);
			socket.once("close", () => open.delete(socket));
			onConnection(new RealConnection(socket));
		});
		await bindPort(server, port);
		const close = async () => {
			const closed = new Promise<void>((resolve) => server.close(() => resolve()));
			for (const socket of open) socket.destroy();
			await closed;
		};
		return { port: (server.address() as net.AddressInfo).port, close };
	}

	async connect(path: string): Promise<Connection> {
		checkPath(path);
		return new RealConnection(await connectTo(path));
	}
}

/** The kernel interface cuts longer paths silently, and the socket would appear elsewhere. */
function checkPath(path: string): void {
	if (Buffer.byteLength(path) <= realLimits.socketPathBytes) return;
	throw new FsError(
		"ENAMETOOLONG",
		"platform.socket-path",
		`the socket path ${path} is longer than ${realLimits.socketPathBytes} bytes; use a shorter folder`,
		{ path },
	);
}

/** Bound with mode 0600 from the first moment. */
function bind(server: net.Server, path: string): Promise<void> {
	return new Promise((resolve, reject) => {
		server.once("error", (error) => reject(toFsError(error, "platform.socket-listen")));
		const umask = process.umask(0o177);
		try {
			server.listen(path, resolve);
		} finally {
			process.umask(umask);
		}
	});
}

function bindPort(server: net.Server, port: number): Promise<void> {
	return new Promise((resolve, reject) => {
		server.once("error", (error: NodeJS.ErrnoException) => {
			const busy = error.code === "EADDRINUSE";
			const message = `somebody listens on port ${port} of 127.0.0.1 already: choose another one`;
			reject(busy ? new FsError("EBUSY", "platform.port-busy", message, { port }, error) : toFsError(error, "platform.port-listen"));
		});
		server.listen({ port, host: "127.0.0.1", exclusive: true }, resolve);
	});
}

async function removeStale(path: string): Promise<void> {
	const stat = fs.lstatSync(path, { throwIfNoEntry: false });
	if (stat === undefined) return;
	if (!stat.isSocket())
		throw new FsError("EEXIST", "platform.socket-occupied", `${path} exists and is not a socket; move it away`, { path });
	if (await answers(path))
		throw new FsError("EBUSY", "platform.socket-busy", `somebody listens on ${path} already; stop the other daemon first`, { path });
	fs.rmSync(path, { force: true });
}

async function answers(path: string): Promise<boolean> {
	try {
		(await connectTo(path)).destroy();
		return true;
	} catch (error) {
		return !(error instanceof FsError && (error.code === "ENOTCONN" || error.code === "ENOENT"));
	}
}

function connectTo(path: string): Promise<net.Socket> {
	return new Promise((resolve, reject) => {
		const socket = net.connect(path);
		const timer = setTimeout(() => socket.destroy(timedOut(path)), realLimits.socketProbeMs);
		socket.once("connect", () => {
			clearTimeout(timer);
			socket.removeAllListeners("error");
			resolve(socket);
		});
		socket.once("error", (error: NodeJS.ErrnoException) => {
			clearTimeout(timer);
			const refused = error.code === "ECONNREFUSED";
			if (refused) reject(new FsError("ENOTCONN", "platform.socket-refused", `nobody listens on ${path}`, { path }, error));
			else reject(toFsError(error, "platform.socket-connect"));
		});
	});
}

function timedOut(path: string): FsError {
	return new FsError("ETIMEDOUT", "platform.socket-timeout", `${path} did not take the connection`, { path });
}
