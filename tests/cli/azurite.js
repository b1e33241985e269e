// Azure's blob service as Microsoft's emulator speaks it, with a container called `bucket`.
//
// Prints `key K`, `sas SIGNATURE` (what docs/remote.md asks for to put, for an hour), `reader SIGNATURE`
// (what it asks for to read) and `port N`, then ends with its standard input. Needs `npm install azurite`, and its folder in NODE_PATH.

const { createHmac } = require("node:crypto");

// The account that every Azurite has.
const ACCOUNT = "devstoreaccount1";
const KEY =
  "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const VERSION = "2021-12-02";

const signature = (lines) =>
  createHmac("sha256", Buffer.from(KEY, "base64")).update(lines.join("\n")).digest("base64");

async function makeContainer(port) {
  const headers = { "x-ms-date": new Date().toUTCString(), "x-ms-version": VERSION };
  const named = Object.entries(headers).map(([name, value]) => `${name}:${value}`);
  const path = `/${ACCOUNT}/${ACCOUNT}/bucket`;
  // The verb, eleven headers that are not sent, ours, the path, the query.
  const lines = ["PUT", ...Array(11).fill(""), ...named, path, "restype:container"];
  headers.Authorization = `SharedKey ${ACCOUNT}:${signature(lines)}`;
  const url = `http://127.0.0.1:${port}/${ACCOUNT}/bucket?restype=container`;
  const made = await fetch(url, { method: "PUT", headers });
  if (made.status !== 201) throw new Error(await made.text());
}

// A signature for the container (sr=c).
function sharedAccess(may) {
  const end = new Date(Date.now() + 3600e3).toISOString().replace(/\.\d+Z/, "Z");
  const lines = [may, "", end, `/blob/${ACCOUNT}/bucket`, "", "", "", VERSION, "c"];
  const sig = signature([...lines, ...Array(7).fill("")]);
  return new URLSearchParams({ sv: VERSION, sr: "c", sp: may, se: end, sig }).toString();
}

const say = console.log;
console.log = async (line) => {
  const port = /successfully listens on http:.*:(\d+)/.exec(line)?.[1];
  if (!port) return;
  await makeContainer(port);
  say(`key ${KEY}`);
  say(`sas ${sharedAccess("rcwl")}`);
  say(`reader ${sharedAccess("rl")}`);
  say(`port ${port}`);
};
process.stdin.on("end", () => process.exit()).resume();
process.argv.push("--inMemoryPersistence", "--blobPort", "0", "--disableTelemetry", "--silent");
require("azurite/dist/src/blob/main.js");
