/** export: serving a mounted volume to NFS clients. */
import { FsError } from "../base/errors.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import type { NfsDoorStatus, ShownExport } from "../daemon/exporter.ts";
import { callDaemon, type Context, findDaemon, type Outcome } from "./context.ts";
import { formatTable } from "./format.ts";

export interface ExportFlags {
	readonly clients?: readonly string[];
	readonly squash: string;
	readonly anonymous: string;
	readonly ro?: boolean;
	readonly anyPort?: boolean;
}

export interface ServeFlags {
	readonly port?: string;
	readonly portmapper?: string;
	readonly name?: string;
}

/** `demo`, `demo:/public`. */
function parseTarget(what: string): { readonly name: string; readonly folder: string } {
	const [name = "", ...rest] = what.split(":");
	const folder = rest.join(":");
	if (name === "" || name.includes("/"))
		throw new FsError("EINVAL", "cli.export-target", `"${what}" is no volume: write NAME, or NAME:/DIRECTORY for a directory in it`);
	if (rest.length > 0 && !folder.startsWith("/"))
		throw new FsError("EINVAL", "cli.export-folder", `"${what}": the directory is a path in the volume: ${name}:/${folder}`);
	return { name, folder };
}

function parseAnonymous(text: string): { readonly anonymousUid: number; readonly anonymousGid: number } {
	const [uid, gid] = /^(\d{1,10}):(\d{1,10})$/.exec(text)?.slice(1).map(Number) ?? [];
	if (uid === undefined || gid === undefined)
		throw new FsError("EINVAL", "cli.export-anonymous", `"${text}" is no user and group: write numbers, 65534:65534`);
	return { anonymousUid: uid, anonymousGid: gid };
}

export async function exportAdd(context: Context, what: string, flags: ExportFlags): Promise<Outcome> {
	const { name, folder } = parseTarget(what);
	const given = {
		folder,
		squash: flags.squash,
		readOnly: flags.ro ?? false,
		anyPort: flags.anyPort ?? false,
		...parseAnonymous(flags.anonymous),
		...(flags.clients === undefined ? {} : { clients: flags.clients }),
	};
	const made = await callDaemon<ShownExport>(context, name, "export-add", given);
	const lines = [`${made.name} is exported as ${made.path} ${whom(made)}`, `  ${made.url}`, `  locks: ${lockText(made)}`];
	const warnings = [
		...(made.trouble === "" ? [] : [`it cannot be used yet: ${made.trouble}`]),
		...(made.squash === "none" ? ["clients' root is root in this volume"] : []),
	];
	return { exitCode: exitCodes.done, json: made, text: `${lines.join("\n")}\n`, warnings };
}

/** Which locks work. */
const lockText = ({ locksUnfound }: ShownExport): string =>
	locksUnfound === ""
		? "of all clients and of this machine's mount against one another"
		: `each client's own, and clients must mount with nolock: ${locksUnfound}`;

const whom = ({ clients }: ShownExport): string => (clients.length === 0 ? "for this machine alone" : `for ${clients.join(", ")}`);

export async function exportRemove(context: Context, what: string): Promise<Outcome> {
	const { name, folder } = parseTarget(what);
	const removed = await callDaemon<{ readonly name: string }>(context, name, "export-remove", { folder });
	return { exitCode: exitCodes.done, json: removed, text: `${removed.name} is exported no more\n` };
}

/** Of one volume, or of all that are mounted: exports are kept in the volumes. */
export async function exportList(context: Context, name: string | undefined): Promise<Outcome> {
	const all: ShownExport[] = [];
	if (name !== undefined) all.push(...(await callDaemon<readonly ShownExport[]>(context, name, "export-list")));
	else for (const known of await context.home.list()) all.push(...(await exportsOf(context, known)));
	const rows = all.map((one) => [
		one.name,
		one.path,
		one.url,
		whom(one).slice(4),
		one.squash,
		one.readOnly ? "ro" : "rw",
		one.locksUnfound === "" ? "shared" : "nolock",
		one.trouble,
	]);
	const text =
		all.length === 0 ? "nothing is exported\n" : formatTable(["name", "path", "url", "clients", "squash", "", "locks", ""], rows);
	return { exitCode: exitCodes.done, json: all, text };
}

async function exportsOf(context: Context, name: string): Promise<readonly ShownExport[]> {
	const client = await findDaemon(context, name);
	if (!client) return [];
	try {
		return (await client.call("export-list")) as readonly ShownExport[];
	} finally {
		client.close();
	}
}

export async function exportServe(context: Context, name: string, flags: ServeFlags): Promise<Outcome> {
	if (flags.port !== undefined && !/^\d{1,5}$/.test(flags.port))
		throw new FsError("EINVAL", "cli.export-port", `"${flags.port}" is no port: 1 to 65535`);
	if (flags.port === undefined && flags.portmapper === undefined && flags.name === undefined)
		throw new FsError("EINVAL", "cli.export-serve", "say what to change: --port, --portmapper or --name");
	const given = {
		...(flags.port === undefined ? {} : { port: Number(flags.port) }),
		...(flags.portmapper === undefined ? {} : { portMapper: flags.portmapper }),
		...(flags.name === undefined ? {} : { serverName: flags.name }),
	};
	const status = await callDaemon<NfsDoorStatus>(context, name, "export-serve", given);
	const where = status.port === 0 ? "nothing is exported yet" : `port ${status.port}, port mapper: ${status.portMapper}`;
	const taken = status.takenByOthers.length === 0 ? [] : [takenText(status.takenByOthers)];
	if (status.port !== 0 && status.locksUnfound !== "" && status.portMapper !== "none")
		taken.push(`clients must mount with nolock, and their locks are their own: ${status.locksUnfound}`);
	return { exitCode: exitCodes.done, json: status, text: `exports of ${name}: ${where}\n`, warnings: taken };
}

export const takenText = (programs: readonly string[]): string =>
	`other programs of this machine have registered ${programs.join(", ")} with rpcbind: clients do not find those of this volume`;
