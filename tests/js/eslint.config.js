// Faults that types do not show. Layout is left to those who write.
import js from "@eslint/js";

const browser = [
  ...["addEventListener", "atob", "clearTimeout", "devicePixelRatio", "document", "fetch", "getComputedStyle", "history", "innerHeight", "innerWidth"],
  ...["EventSource", "HTMLMediaElement", "HTMLTableCellElement", "IntersectionObserver", "Node", "Path2D", "ResizeObserver"],
  ...["location", "matchMedia", "performance", "requestAnimationFrame", "setTimeout", "window"],
];

export default [
  {
    files: ["**/*.js"],
    ...js.configs.recommended,
    languageOptions: { ecmaVersion: 2024, sourceType: "module", globals: Object.fromEntries(browser.map((name) => [name, "readonly"])) },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      ...js.configs.recommended.rules,
      "eqeqeq": "error",
      "no-shadow-restricted-names": "error",
      "no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_", caughtErrors: "all" }],
      "no-var": "error",
      "prefer-const": ["error", { destructuring: "all" }],
    },
  },
];
