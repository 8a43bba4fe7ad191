/**
 * The page at `/` for browsers, and its files. Vite builds them from `web/` into `dist/web`; they
 * are read once and sent as they are, compressed at build time. Whoever does not ask for HTML gets
 * the index of `status.ts`.
 */
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { accepts } from "hono/accepts";
import { etag } from "hono/etag";
import { getMimeType } from "hono/utils/mime";
import { DenseMambaError } from "../../errors.ts";
import type { App, AppContext } from "../deps.ts";

/** The relative path is the same from `src/` and from `dist/`. */
const FOLDER = fileURLToPath(new URL("../../../dist/web", import.meta.url));

/** In the order of preference, with the ends of the names of the files that the build adds. */
const ENCODINGS = { br: ".br", gzip: ".gz", identity: "" } as const;
type Encoding = keyof typeof ENCODINGS;

const POLICY = [
  "default-src 'none'",
  ...["script-src", "style-src", "connect-src"].map((directive) => `${directive} 'self'`),
  "img-src 'self' data:",
  ...["base-uri", "form-action", "frame-ancestors"].map((directive) => `${directive} 'none'`),
  // What becomes HTML has passed DOMPurify.
  "require-trusted-types-for 'script'",
  "trusted-types dompurify",
].join("; ");

/** By the names of files, without the ends that stand for encodings. */
type Page = ReadonlyMap<string, { readonly type: string; readonly bodies: ReadonlyMap<Encoding, Body> }>;

interface Body {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly etag: string;
}

/** @param folder of the built page; without it, browsers get the index too */
export function pageRoutes(app: App, folder = FOLDER): void {
  let reading: Promise<Page> | undefined;
  const read = () => {
    reading ??= readPage(folder);
    return reading;
  };

  app.get("/", etag(), async (context, next) => {
    context.header("vary", "Accept", { append: true });
    const asked = accepts(context, {
      header: "Accept",
      supports: ["text/html", "application/json"],
      default: "application/json",
    });
    const page = asked === "text/html" ? await read() : undefined;
    if (!page?.has("index.html")) return next();
    // Without a final slash the page's own links would lead elsewhere.
    const { pathname } = new URL(context.req.url);
    if (!pathname.endsWith("/")) return context.redirect(`./${pathname.split("/").at(-1)}/`);
    context.header("content-security-policy", POLICY);
    context.header("cross-origin-opener-policy", "same-origin");
    context.header("referrer-policy", "no-referrer");
    return answerFile(context, page, "index.html", "no-cache");
  });

  app.get("/assets/:file", etag(), async (context) => {
    const name = `assets/${context.req.param("file")}`;
    const page = await read();
    if (page.has(name)) return answerFile(context, page, name, "public, max-age=31536000, immutable");
    throw new DenseMambaError("route_not_found", `there is no route GET ${context.req.path}`);
  });
}

async function readPage(folder: string): Promise<Page> {
  const names = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const page = new Map<string, { type: string; bodies: Map<Encoding, Body> }>();
  for (const entry of names.filter((each) => each.isFile())) {
    const file = join(entry.parentPath, entry.name);
    const bytes = await readFile(file);
    const [encoding, end] = encodingOf(file);
    const name = file.slice(folder.length + 1, file.length - end.length).replaceAll("\\", "/");
    const found = page.get(name) ?? { type: getMimeType(name) ?? "application/octet-stream", bodies: new Map() };
    found.bodies.set(encoding, { bytes, etag: `"${createHash("sha256").update(bytes).digest("hex").slice(0, 32)}"` });
    page.set(name, found);
  }
  return page;
}

function encodingOf(file: string): [Encoding, string] {
  const known = Object.entries(ENCODINGS) as [Encoding, string][];
  return known.find(([, end]) => file.endsWith(end))!;
}

function answerFile(context: AppContext, page: Page, name: string, cacheControl: string): Response {
  const { type, bodies } = page.get(name)!;
  const encoding = accepts(context, {
    header: "Accept-Encoding",
    supports: [...bodies.keys()],
    default: "identity",
    match: (accepted) => {
      const isAccepted = (encoding: string) =>
        accepted.some(({ type, q }) => q > 0 && (type === encoding || type === "*"));
      return (Object.keys(ENCODINGS) as Encoding[]).find((each) => bodies.has(each) && isAccepted(each)) ?? "identity";
    },
  }) as Encoding;
  const body = bodies.get(encoding)!;
  context.header("vary", "Accept-Encoding", { append: true });
  if (encoding !== "identity") context.header("content-encoding", encoding);
  return context.body(body.bytes, 200, {
    "content-type": type,
    "content-length": String(body.bytes.byteLength),
    "cache-control": cacheControl,
    "x-content-type-options": "nosniff",
    etag: body.etag,
  });
}
