import { render } from "preact";
import { createPage } from "./state/page.ts";
import { App } from "./view/app.tsx";

render(<App page={createPage()} />, document.body);
