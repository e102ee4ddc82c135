// What keeps people out of a page and a program can find: controls without a name, structure that is missing, text
// too faint to read.

/** Sentences, one per barrier; none when there is none. */
export async function lookForBarriers(page) {
  return [...(await nameless(page)), ...(await page.evaluate(inPage))];
}

/** As the browser tells a screen reader: each thing that takes the focus has a name. */
async function nameless(page) {
  const devtools = await page.context().newCDPSession(page);
  const { nodes } = await devtools.send("Accessibility.getFullAXTree");
  await devtools.detach();
  const takesFocus = (node) => node.properties?.some(({ name, value }) => name === "focusable" && value.value);
  return nodes
    .filter((node) => !node.ignored && takesFocus(node) && node.role.value !== "RootWebArea" && !node.name?.value)
    .map((node) => `a ${node.role.value} has no name`);
}

/** Runs in the page. */
function inPage() {
  const found = [];
  const visible = (element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest(".hidden, .skip");
  const all = (selector) => [...document.querySelectorAll(selector)].filter((element) => element.checkVisibility());

  if (!document.documentElement.lang) found.push("the page names no language");
  if (!document.title) found.push("the page has no title");
  if (all("main").length !== 1) found.push(`${all("main").length} main landmarks`);
  if (all("h1").length !== 1) found.push(`${all("h1").length} first headings`);
  for (const image of all("img:not([alt])")) found.push(`an image without alt: ${image.src}`);
  for (const element of all("[tabindex]")) if (element.tabIndex > 0) found.push(`a tabindex of ${element.tabIndex}`);
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  for (const id of ids.filter((each, index) => ids.indexOf(each) !== index)) found.push(`the id ${id} twice`);
  for (const attribute of ["for", "aria-labelledby", "aria-describedby"]) {
    for (const element of document.querySelectorAll(`[${attribute}]`)) {
      for (const id of element.getAttribute(attribute).split(" ")) if (!ids.includes(id)) found.push(`${attribute} names ${id}, which is not there`);
    }
  }
  let level = 0;
  for (const heading of all("h1, h2, h3, h4")) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) found.push(`a heading of level ${next} after ${level}`);
    level = next;
  }

  // Contrast as WCAG 2.2 defines it in 1.4.3, of text on the colour behind it.
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => {
    const [red, green, blue] = colour.map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  for (const element of document.body.querySelectorAll("*")) {
    const text = [...element.childNodes].filter(({ nodeType }) => nodeType === Node.TEXT_NODE).map(({ data }) => data.trim()).join("");
    if (!text || !visible(element) || element.disabled) continue;
    const style = getComputedStyle(element);
    const [lighter, darker] = [luminance(rgba(style.color)), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (lighter + 0.05) / (darker + 0.05);
    const size = Number.parseFloat(style.fontSize);
    const wanted = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (ratio < wanted) found.push(`"${text.slice(0, 30)}" has a contrast of ${ratio.toFixed(2)}`);
  }
  return found;
}
