/**
 * `/openapi.yaml` and a reference page at `/docs`, all from local files: nothing is fetched from a
 * network.
 */

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { DenseMambaError } from "../../errors.ts";
import type { App } from "../deps.ts";

/** The relative path is the same from `src/` and from `dist/`. */
const OPENAPI_FILE = fileURLToPath(new URL("../../../openapi.yaml", import.meta.url));

const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>densemamba API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="./docs/swagger-ui.css">
<div id="reference"></div>
<script src="./docs/swagger-ui-bundle.js"></script>
<script src="./docs/init.js"></script>
</html>
`;

const INIT = `SwaggerUIBundle({
  url: "./openapi.yaml",
  dom_id: "#reference",
  deepLinking: true,
  validatorUrl: null,
});
`;

const JAVASCRIPT = "text/javascript; charset=utf-8";

const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

export function docsRoutes(app: App): void {
  const assetsDir = dirname(createRequire(import.meta.url).resolve("swagger-ui-dist/package.json"));

  app.get("/openapi.yaml", async (context) => {
    return context.body(await readFile(OPENAPI_FILE, "utf8"), 200, {
      "content-type": "application/yaml; charset=utf-8",
    });
  });

  app.get("/docs", (context) => {
    // Below a final slash the page's own links would lead elsewhere.
    if (new URL(context.req.url).pathname.endsWith("/")) return context.redirect("../docs");
    context.header("content-security-policy", POLICY);
    return context.html(PAGE);
  });

  app.get("/docs/:asset", async (context) => {
    const asset = context.req.param("asset");
    context.header("cache-control", "public, max-age=3600");
    context.header("x-content-type-options", "nosniff");
    switch (asset) {
      case "init.js":
        return context.body(INIT, 200, { "content-type": JAVASCRIPT });
      case "swagger-ui-bundle.js":
        return context.body(await readFile(join(assetsDir, asset), "utf8"), 200, { "content-type": JAVASCRIPT });
      case "swagger-ui.css":
        return context.body(await readFile(join(assetsDir, asset), "utf8"), 200, {
          "content-type": "text/css; charset=utf-8",
        });
      default:
        throw new DenseMambaError("route_not_found", `there is no route GET /docs/${asset}`);
    }
  });
}
