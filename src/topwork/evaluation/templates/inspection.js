const atlas = document.querySelector(".atlas"), card = atlas && atlas.querySelector(".card");
if (card) {
  const picture = card.querySelector("img"), fields = Object.fromEntries(["text", "label", "fits", "item"].map(name => [name, card.querySelector("." + name)]));
  const show = point => {
    const { src, ...said } = point.dataset;
    picture.hidden = !src;
    if (src) picture.src = src; else picture.removeAttribute("src");
    for (const [name, field] of Object.entries(fields)) { field.textContent = said[name] || ""; field.hidden = !said[name]; }
    card.hidden = false;
    const box = atlas.getBoundingClientRect(), at = point.getBoundingClientRect();
    const left = at.left - box.left + 14, wide = card.offsetWidth, high = card.offsetHeight;
    card.style.left = Math.max(4, left + wide > box.width ? left - wide - 28 : left) + "px";
    card.style.top = Math.max(4, Math.min(at.top - box.top - 20, box.height - high - 4)) + "px";
  };
  for (const point of atlas.querySelectorAll(".point, .stamp")) {
    point.addEventListener("pointerenter", () => show(point));
    point.addEventListener("focus", () => show(point));
    point.addEventListener("pointerleave", () => { card.hidden = true; });
    point.addEventListener("blur", () => { card.hidden = true; });
  }
}
