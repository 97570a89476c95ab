/**
 * From the schema of a question to the fields of a form, and from what was typed to an answer: values only, no HTML.
 *
 *     const fields = formOf(question.schema);
 *     const values = valuesOf(fields, new FormData(form));
 *     const errors = check(fields, values);               // {} where all is well
 *
 * Schemas are MCP's: one flat object of strings, numbers, booleans and choices (2025-11-25 client/elicitation.mdx).
 */

/**
 * @typedef {"text"|"email"|"url"|"date"|"datetime"|"number"|"integer"|"boolean"|"choice"|"choices"|"unsupported"} Kind
 * @typedef {{name: string, kind: Kind, title: string, description: string, required: boolean, default?: any,
 *   options?: {value: string | number | boolean, title: string}[], minimum?: number, maximum?: number, above?: number,
 *   below?: number, minLength?: number, maxLength?: number, minItems?: number, maxItems?: number}} Field
 *   `options`: of a choice; `above` and `below`: limits that don't belong to the range; lengths are in characters.
 */

const FORMATS = { email: "email", uri: "url", date: "date", "date-time": "datetime" };
const LIMITS = ["minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"];
const DEEPEST = 8; // `$ref`s to follow: a hostile schema refers to itself

/** The fields that a schema asks for, in its order. What no form can hold has the kind "unsupported". @returns {Field[]} */
export function formOf(/** @type {any} */ schema) {
  const required = new Set(Array.isArray(schema?.required) ? schema.required : []);
  return Object.entries(schema?.properties ?? {}).map(([name, property]) => {
    const { plain, optional } = resolved(property, schema);
    return {
      name,
      ...about(name, plain),
      ...kindOf(plain),
      ...limitsOf(plain),
      required: required.has(name) && !optional,
    };
  });
}

/** A property without references and without a "or nothing". */
function resolved(property, schema, depth = 0) {
  const here = property && typeof property === "object" ? property : {};
  if (depth > DEEPEST) return { plain: {}, optional: false };
  if (typeof here.$ref === "string") {
    const [, group, name] = /^#\/(\$defs|definitions)\/([^/]+)$/.exec(here.$ref) ?? [];
    return overlaid(here, resolved(group && schema[group]?.[name], schema, depth + 1));
  }
  const choices = here.anyOf ?? here.allOf;
  if (!Array.isArray(choices)) return { plain: here, optional: false };
  const some = choices.filter((one) => one?.type !== "null");
  if (some.length !== 1) return { plain: here, optional: some.length < choices.length };
  const inner = overlaid(here, resolved(some[0], schema, depth + 1));
  return { ...inner, optional: inner.optional || some.length < choices.length };
}

/** What stands beside a reference (title, default) is stronger than what it refers to. */
function overlaid(here, { plain, optional }) {
  const { $ref, anyOf, allOf, ...beside } = here;
  return { plain: { ...plain, ...beside }, optional };
}

function about(name, { title, description, default: given }) {
  const said = { title: text(title) || name, description: text(description) };
  return given === undefined ? said : { ...said, default: given };
}

const text = (value) => (typeof value === "string" ? value : "");

/** @returns {{kind: Kind, options?: Field["options"]}} */
function kindOf(plain) {
  const options = optionsOf(plain);
  if (options) return { kind: "choice", options };
  if (plain.type === "array") {
    const some = optionsOf(plain.items ?? {});
    return some ? { kind: "choices", options: some } : { kind: "unsupported" };
  }
  if (plain.type === "string")
    return { kind: Object.hasOwn(FORMATS, plain.format ?? "") ? FORMATS[plain.format] : "text" };
  const simple = ["number", "integer", "boolean"].includes(plain.type);
  return { kind: simple ? plain.type : "unsupported" };
}

/** The values to choose from, with the words for them, or null. */
function optionsOf(plain) {
  if (Array.isArray(plain.enum)) {
    const names = Array.isArray(plain.enumNames) ? plain.enumNames : [];
    return plain.enum.map((value, n) => ({ value, title: text(names[n]) || String(value) }));
  }
  const all = plain.oneOf ?? plain.anyOf ?? (Object.hasOwn(plain, "const") ? [plain] : null);
  if (!Array.isArray(all) || !all.every((one) => one && Object.hasOwn(one, "const"))) return null;
  return all.map((one) => ({ value: one.const, title: (one !== plain && text(one.title)) || String(one.const) }));
}

function limitsOf(plain) {
  const limits = {};
  for (const name of LIMITS) if (Number.isFinite(plain[name])) limits[name] = plain[name];
  if (Number.isFinite(plain.exclusiveMinimum)) limits.above = plain.exclusiveMinimum;
  if (Number.isFinite(plain.exclusiveMaximum)) limits.below = plain.exclusiveMaximum;
  return limits;
}

// --- from a form to values --------------------------------------------------------------------------------------

/**
 * What was typed, as the values that the schema wants: numbers as numbers, an unticked box as false, empty as absent.
 * @param {Field[]} fields @param {FormData} typed @returns {Record<string, any>}
 */
export function valuesOf(fields, typed) {
  const pairs = fields.map((field) => [field.name, valueOf(field, typed)]);
  return Object.fromEntries(pairs.filter(([, value]) => value !== undefined));
}

function valueOf(field, typed) {
  const raw = typed.get(field.name);
  if (field.kind === "boolean") return raw !== null && raw !== "false";
  if (field.kind === "choices") return typed.getAll(field.name).map((one) => chosen(field, one));
  if (typeof raw !== "string" || raw === "") return undefined;
  if (field.kind === "choice") return chosen(field, raw);
  if (field.kind === "number" || field.kind === "integer") return Number.isNaN(Number(raw)) ? raw : Number(raw);
  if (field.kind === "datetime") return zoned(raw);
  return raw;
}

const chosen = (field, raw) => field.options.find(({ value }) => String(value) === raw)?.value ?? raw;

/** `<input type="datetime-local">` knows no zone, the schema's format wants one: it is this person's. */
function zoned(raw) {
  const local = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?$/.test(raw) ? new Date(raw) : null;
  return local && !Number.isNaN(local.getTime()) ? local.toISOString() : raw;
}

// --- checking ---------------------------------------------------------------------------------------------------

/**
 * What is wrong with these values, as the end of a sentence that begins with the field's title; {} where nothing is.
 * @param {Field[]} fields @param {Record<string, any>} values @returns {Record<string, string>}
 */
export function check(fields, values) {
  const wrong = fields.map((field) => [
    field.name,
    fault(field, Object.hasOwn(values, field.name) ? values[field.name] : undefined),
  ]);
  return Object.fromEntries(wrong.filter(([, why]) => why));
}

function fault(field, value) {
  if (value === undefined || value === null) return field.required ? "is needed" : "";
  const of = FAULTS[field.kind];
  return of ? of(field, value) : "";
}

const FAULTS = {
  text: (field, value) => (typeof value === "string" ? ofLength(field, [...value].length) : "must be text"),
  email: (field, value) =>
    FAULTS.text(field, value) || (/^[^\s@]+@[^\s@]+$/.test(value) ? "" : "must be an e-mail address"),
  url: (field, value) =>
    FAULTS.text(field, value) || (URL.canParse(value) ? "" : "must be a URL, such as https://example.org"),
  date: (field, value) =>
    FAULTS.text(field, value) || (isDate(value) ? "" : "must be a date as year-month-day, such as 2027-03-20"),
  datetime: (field, value) =>
    FAULTS.text(field, value) || (isMoment(value) ? "" : "must be a time with its zone, such as 2027-03-20T09:30:00Z"),
  number: (field, value) => (Number.isFinite(value) ? inRange(field, value) : "must be a number"),
  integer: (field, value) => (Number.isSafeInteger(value) ? inRange(field, value) : "must be a whole number"),
  boolean: (field, value) => (typeof value === "boolean" ? "" : "must be yes or no"),
  choice: (field, value) => (field.options.some((one) => one.value === value) ? "" : "must be one of the choices"),
  choices: (field, value) => {
    if (!Array.isArray(value) || value.some((one) => FAULTS.choice(field, one))) return "must be some of the choices";
    if (value.length < (field.minItems ?? 0)) return `needs at least ${field.minItems} choices`;
    return value.length > (field.maxItems ?? Infinity) ? `takes at most ${field.maxItems} choices` : "";
  },
};

function ofLength({ minLength = 0, maxLength = Infinity }, length) {
  if (length < minLength) return `must have at least ${minLength} characters`;
  return length > maxLength ? `must have at most ${maxLength} characters` : "";
}

function inRange({ minimum = -Infinity, maximum = Infinity, above = -Infinity, below = Infinity }, value) {
  if (value < minimum) return `must be at least ${minimum}`;
  if (value > maximum) return `must be at most ${maximum}`;
  if (value <= above && above !== -Infinity) return `must be more than ${above}`;
  return value >= below && below !== Infinity ? `must be less than ${below}` : "";
}

/** A day that there is: 2027-02-30 is none. */
function isDate(value) {
  const day = /^\d{4}-\d\d-\d\d$/.test(value) ? new Date(`${value}T00:00:00Z`) : null;
  return day !== null && !Number.isNaN(day.getTime()) && day.toISOString().startsWith(value);
}

/** RFC 3339: a day, a time, and where that time is meant. */
function isMoment(value) {
  const parts = /^(\d{4}-\d\d-\d\d)[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/.exec(value);
  return parts !== null && isDate(parts[1]) && !Number.isNaN(Date.parse(value.replace(" ", "T").toUpperCase()));
}
