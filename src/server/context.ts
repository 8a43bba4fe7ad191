/** The types of hono's context here. Bindings are absent where the app runs without Node's HTTP server, as in `app.request`. */
import type { HttpBindings } from "@hono/node-server";
import type { Context, Hono, MiddlewareHandler } from "hono";
import type { GenerationUsage } from "../generation/events.ts";

export interface AppEnv {
  Bindings: Partial<HttpBindings>;
  Variables: {
    requestId: string;
    /** Whose sessions and responses the request may name; set by the key check. */
    owner: string;
    /** Set by the generating routes, for the access log. */
    usage: GenerationUsage | undefined;
  };
}

export type App = Hono<AppEnv>;
export type AppContext = Context<AppEnv>;
export type AppMiddleware = MiddlewareHandler<AppEnv>;
