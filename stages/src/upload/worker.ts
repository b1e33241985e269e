// A Cloudflare Worker that talks to the fine-tuned model. Made by tunesmith.
// wrangler.toml needs the binding:
//   [ai]
//   binding = "AI"

const MODEL = "@MODEL@";
const LORA = "@LORA@";
// The very text the model was trained with; change it only together with a new training.
const SYSTEM_PROMPT: string = "@SYSTEM@";
// Whether the prompt is sent in the template of the training instead of as messages.
const RAW_FORM = false as boolean;
const MAX_TOKENS = 512;

export interface Env {
  AI: { run(model: string, input: Record<string, unknown>): Promise<unknown> };
}

export interface Turn {
  role: "user" | "assistant";
  content: string;
}

export interface Call {
  tool: string;
  params: Record<string, unknown>;
}

export interface Answer {
  /** The answer as it came: keep it as the assistant's turn of the history. */
  text: string;
  /** What to show. */
  prose: string;
  /** What to do; check the params before you do it. */
  calls: Call[];
}

/** "[Mon 2026-03-02 09:00] ": the model reads the user's local time before the first turn. */
export function stamp(now: Date, timeZone: string): string {
  const parts = new Intl.DateTimeFormat("en-GB", {
    timeZone, weekday: "short", year: "numeric", month: "2-digit", day: "2-digit",
    hour: "2-digit", minute: "2-digit", hourCycle: "h23",
  }).formatToParts(now);
  const get = (type: string) => parts.find((part) => part.type === type)?.value ?? "";
  return `[${get("weekday")} ${get("year")}-${get("month")}-${get("day")} ${get("hour")}:${get("minute")}] `;
}

/** JSON with a space after colons and commas, as in the training. */
function spaced(value: unknown): string {
  if (Array.isArray(value)) {
    return `[${value.map(spaced).join(", ")}]`;
  }
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${spaced(item)}`);
    return `{${entries.join(", ")}}`;
  }
  return JSON.stringify(value) ?? "null";
}

/** A tool's result, as the model expects it back: the content of the next user turn. */
export function toolResult(result: unknown): string {
  return `Result: ${spaced(result)}`;
}

/** The training's own template; a system prompt belongs to the first user turn. */
function rawPrompt(turns: Turn[]): string {
  let text = "<s>";
  turns.forEach((turn, at) => {
    const system = at === 0 && SYSTEM_PROMPT !== "" ? `${SYSTEM_PROMPT}\n\n` : "";
    text += turn.role === "user" ? `[INST] ${system}${turn.content} [/INST]` : ` ${turn.content}</s>`;
  });
  return text;
}

/** Asks the model. The first turn is the user's; the last one too. */
export async function answer(env: Env, turns: Turn[], now: Date, timeZone: string): Promise<Answer> {
  const timed = turns.map((turn, at) =>
    at === 0 ? { ...turn, content: stamp(now, timeZone) + turn.content } : turn,
  );
  const system = SYSTEM_PROMPT === "" ? [] : [{ role: "system", content: SYSTEM_PROMPT }];
  const form = RAW_FORM
    ? { prompt: rawPrompt(timed), raw: true }
    : { messages: [...system, ...timed] };
  const result = (await env.AI.run(MODEL, {
    ...form, lora: LORA, max_tokens: MAX_TOKENS, temperature: 0, seed: 1,
  })) as { response?: unknown };
  const { response } = result;
  return parse(typeof response === "string" ? response : JSON.stringify(response ?? ""));
}

/** Splits an answer into prose and calls; a block that is no call stays prose. */
export function parse(text: string): Answer {
  const calls: Call[] = [];
  const prose = text.replace(/```json\s*\n([\s\S]*?)```/g, (block: string, json: string) => {
    try {
      const call = JSON.parse(json) as Partial<Call>;
      if (typeof call.tool === "string" && typeof call.params === "object" && call.params !== null) {
        calls.push({ tool: call.tool, params: call.params });
        return "";
      }
    } catch {
      // Not JSON: shown as it is.
    }
    return block;
  });
  return { text, prose: prose.trim(), calls };
}

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    if (request.method !== "POST") {
      return new Response('POST {"turns": [{"role": "user", "content": "..."}], "timeZone": "Europe/Berlin"}\n', { status: 405 });
    }
    const body = (await request.json()) as { turns: Turn[]; timeZone?: string };
    return Response.json(await answer(env, body.turns, new Date(), body.timeZone ?? "UTC"));
  },
};
