// The page keeps all that is chosen; the server only answers.

const MOST_SEED = 2 ** 32;
const FRAMES = 120;
// As many may a way go through.
const MOST_FAVOURITES = 32;
const $ = (id) => document.getElementById(id);
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

const state = {
  run: null,
  // Of a projected image or a favourite; null: the seed's.
  latent: null,
  moves: {},
  noiseSeed: randomSeed(),
  history: [],
  favourites: [],
  // What is shown, as it was asked for, and its first image.
  shown: null,
  source: "",
  // The checkpoint that the sliders of directions are of.
  directionsOf: "",
};

function randomSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

function say(words) {
  $("status").textContent = words;
}

async function ask(name, body) {
  const options = body === undefined ? {} : { method: "POST", body };
  const answer = await fetch(name, options).catch(() => null);
  if (!answer) throw new Error("the server does not answer");
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
}

const askJson = async (name, body) =>
  (await ask(name, body === undefined ? undefined : JSON.stringify(body))).json();

// What an action does, with its errors said.
function safely(action) {
  return async (...given) => {
    try {
      await action(...given);
    } catch (error) {
      say(`Error: ${error.message}`);
    }
  };
}

const seed = () => Math.min(MOST_SEED - 1, Math.max(0, Math.trunc(Number($("seed").value)) || 0));
const step = () => state.run.steps[Number($("step").value)];

function check(name, value) {
  document.querySelector(`input[name=${name}][value="${value}"]`).checked = true;
}

function picked(offset = 0) {
  return { seed: (seed() + offset) % MOST_SEED, latent: state.latent, moves: { ...state.moves } };
}

function scene() {
  const label = $("label").value;
  const common = {
    step: step(),
    weights: chosen("weights"),
    truncation: Number($("truncation").value),
    noise: chosen("noise"),
    noise_seed: state.noiseSeed,
    label: label ? Number(label) : null,
  };
  const frame = Number($("timeline").value);
  if (frame >= 0 && state.favourites.length > 1) {
    const images = state.favourites.map((favourite) => favourite.picked);
    return { ...common, images, frames: FRAMES, frame };
  }
  const count = Number(chosen("view"));
  return { ...common, images: Array.from({ length: count }, (_, i) => picked(i)) };
}

function showValues() {
  $("step-value").textContent = step();
  $("truncation-value").textContent = $("truncation").value;
  const frame = Number($("timeline").value);
  $("timeline-value").textContent = frame < 0 ? "off" : `frame ${frame} of ${FRAMES}`;
  for (const slider of document.querySelectorAll("#directions input")) {
    slider.value = state.moves[slider.dataset.place] ?? 0;
    slider.previousElementSibling.querySelector("output").textContent = slider.value;
  }
}

function imageOf(source, words) {
  const image = document.createElement("img");
  image.src = source;
  image.alt = words;
  return image;
}

// One image with its latent and moves, and perhaps how it was drawn.
function open(own, how = {}) {
  check("view", 1);
  Object.assign(state, { latent: own.latent, moves: { ...own.moves } });
  $("seed").value = own.seed;
  $("timeline").value = -1;
  if (how.noise_seed !== undefined) state.noiseSeed = how.noise_seed;
  if (how.truncation !== undefined) $("truncation").value = how.truncation;
  if (how.label !== undefined) $("label").value = how.label ?? "";
  for (const name of ["weights", "noise"]) if (how[name]) check(name, how[name]);
  if (state.run.steps.includes(how.step)) $("step").value = state.run.steps.indexOf(how.step);
  return draw();
}

function showImages(asked, answer) {
  const several = answer.images.length > 1;
  $("images").style.setProperty("--columns", Math.ceil(Math.sqrt(answer.images.length)));
  $("images").replaceChildren(
    ...answer.images.map((source, i) => {
      const own = asked.images[i].seed;
      const words = asked.frames ? `Frame ${asked.frame}` : `Seed ${own}`;
      const image = imageOf(source, `${words}, step ${asked.step}`);
      if (!several) return image;
      const button = document.createElement("button");
      button.type = "button";
      button.append(image);
      button.addEventListener("click", () => {
        open(asked.images[i]);
        $("seed").focus();
      });
      return button;
    }),
  );
  $("command").textContent = answer.commands[0];
  $("needs-latent").hidden = !answer.needs_latent[0];
  $("nearest").replaceChildren();
}

// One request at a time; of those that come meanwhile, the last one counts.
let drawing = false;
let again = false;

async function draw() {
  showValues();
  again = drawing;
  if (drawing) return;
  drawing = true;
  $("images").setAttribute("aria-busy", "true");
  try {
    await lookForDirections();
    const asked = scene();
    const answer = await askJson("images", asked);
    Object.assign(state, { shown: asked, source: answer.images[0] });
    showImages(asked, answer);
    remember(asked);
    say(`Step ${asked.step}, ${asked.weights === "ema" ? "averaged" : "live"} generator`);
  } catch (error) {
    say(`Error: ${error.message}`);
  }
  $("images").removeAttribute("aria-busy");
  drawing = false;
  if (again) await draw();
}

function remember(asked) {
  const own = asked.images[0];
  if (asked.frames || own.latent || state.history[0] === own.seed) return;
  state.history = [own.seed, ...state.history.filter((other) => other !== own.seed)].slice(0, 12);
  $("history").replaceChildren(
    ...state.history.map((old) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = old;
      button.addEventListener("click", () => goTo(old));
      return button;
    }),
  );
}

function goTo(where) {
  state.latent = null;
  $("seed").value = (where + MOST_SEED) % MOST_SEED;
  $("timeline").value = -1;
  return draw();
}

async function lookForDirections() {
  if (step() === undefined) throw new Error("this run has no checkpoint yet");
  const own = { step: step(), weights: chosen("weights") };
  if (state.directionsOf === JSON.stringify(own)) return;
  showDirections(await askJson("directions", own));
  state.directionsOf = JSON.stringify(own);
}

function showDirections(names) {
  $("no-directions").hidden = names.length > 0;
  $("straighten").disabled = !names.length;
  const there = [...document.querySelectorAll("#directions input")].map((each) => each.dataset.name);
  if (JSON.stringify(there) === JSON.stringify(names)) return;
  const reach = Math.sqrt(state.run.latent_dim).toFixed(1);
  $("directions").replaceChildren(
    ...names.flatMap((name, place) => {
      const label = document.createElement("label");
      label.htmlFor = `direction-${place}`;
      label.append(`${name}: `, document.createElement("output"));
      const slider = document.createElement("input");
      Object.assign(slider, { id: label.htmlFor, type: "range", min: -reach, max: reach, step: 0.1 });
      Object.assign(slider.dataset, { name, place });
      slider.addEventListener("input", () => {
        state.moves[place] = Number(slider.value);
        draw();
      });
      return [label, slider];
    }),
  );
  state.moves = Object.fromEntries(Object.entries(state.moves).filter(([place]) => place < names.length));
  showValues();
}

// Favourites stay in this browser, for this run.
const shelf = () => `lwgan favourites ${state.run.shelf}`;

function readFavourites() {
  try {
    const kept = JSON.parse(localStorage.getItem(shelf()) ?? "[]");
    const fits = ({ latent }) => !latent || latent.length === state.run.latent_dim;
    state.favourites = kept.filter((each) => each.id && each.picked && each.how && fits(each.picked));
  } catch {
    state.favourites = [];
  }
}

function keepFavourites(favourites) {
  localStorage.setItem(shelf(), JSON.stringify(favourites));
  state.favourites = favourites;
  showFavourites();
}

function showFavourites() {
  const several = state.favourites.length > 1;
  $("timeline").disabled = $("save-video").disabled = !several;
  if (!several) $("timeline").value = -1;
  $("favourites").replaceChildren(
    ...state.favourites.map((favourite, place) => {
      const tile = document.createElement("figure");
      const show = document.createElement("button");
      show.type = "button";
      show.append(imageOf(favourite.image, `Favourite ${place + 1}: seed ${favourite.picked.seed}`));
      show.addEventListener("click", () => open(favourite.picked, favourite.how));
      const remove = document.createElement("button");
      remove.type = "button";
      remove.textContent = "Remove";
      remove.setAttribute("aria-label", `Remove favourite ${place + 1}`);
      remove.addEventListener("click", () => {
        readFavourites();
        keepFavourites(state.favourites.filter((other) => other.id !== favourite.id));
        if (Number($("timeline").value) >= 0 || state.shown.frames) draw();
        $("keep").focus();
      });
      tile.append(show, remove);
      return tile;
    }),
  );
}

// The one image that is meant: the first of a grid.
function one(asked) {
  if (!asked) throw new Error("there is no image yet");
  return asked.frames ? asked : { ...asked, images: asked.images.slice(0, 1) };
}

async function save(name, file, asked) {
  say(`Writing ${file}`);
  const content = await (await ask(name, JSON.stringify(asked))).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  say(`${file} is saved`);
}

async function keep() {
  const asked = one(state.shown);
  const image = await thumbnail(state.source);
  const { images, frames, frame, ...how } = asked;
  let own = images[0];
  if (frames) own = { seed: own.seed, latent: await latentOf(asked), moves: {} };
  readFavourites();
  if (state.favourites.length >= MOST_FAVOURITES) throw new Error("there are too many favourites");
  keepFavourites([...state.favourites, { id: `${Date.now()} ${randomSeed()}`, picked: own, how, image }]);
  say("Added to the favourites");
}

// A browser keeps little: the longer side is 128 px at most.
async function thumbnail(source) {
  const image = imageOf(source, "");
  await image.decode();
  const scale = Math.min(1, 128 / Math.max(image.naturalWidth, image.naturalHeight));
  if (scale === 1) return source;
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(scale * image.naturalWidth);
  canvas.height = Math.round(scale * image.naturalHeight);
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL();
}

// Of a frame; an .npy file of one row of float32 ends with it.
async function latentOf(asked) {
  const file = await (await ask("latent.npy", JSON.stringify(asked))).arrayBuffer();
  const size = 4 * state.run.latent_dim;
  return [...new Float32Array(file.slice(file.byteLength - size))];
}

async function findNearest() {
  say("Looking for the nearest training images; the first time takes a while");
  const near = await askJson("nearest", one(state.shown));
  $("nearest").replaceChildren(
    ...near.map(({ name, image }) => {
      const tile = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = name;
      tile.append(imageOf(image, `Training image ${name}`), caption);
      return tile;
    }),
  );
  say(`${near.length} nearest training images`);
}

async function project(file) {
  if (!file) return;
  say("Searching the latent, which takes a while");
  const how = { step: step(), weights: chosen("weights") };
  const label = $("label").value;
  const asked = new URLSearchParams({ ...how, ...(label ? { label } : {}) });
  const { latent, psnr, label: its } = await (await ask(`project?${asked}`, file)).json();
  await open({ seed: seed(), latent, moves: {} }, { ...how, truncation: 1, noise: "zero", label: its });
  say(`Found, without noise: ${psnr.toFixed(1)} dB`);
}

// Each time that it begins or ends.
let watching = 0;

async function watchItLearn() {
  const button = $("learn");
  const on = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", on);
  const own = (watching += 1);
  if (!on) return;
  $("step").value = 0;
  while (own === watching) {
    await draw();
    await new Promise((resolve) => setTimeout(resolve, 300));
    if (own !== watching) return;
    if (Number($("step").value) >= Number($("step").max)) break;
    $("step").value = Number($("step").value) + 1;
  }
  button.setAttribute("aria-pressed", false);
}

// A run that is being trained has new checkpoints, and may drop old ones.
async function lookForSteps() {
  const now = await askJson("run").catch((error) => ({ error }));
  if (now.error || $("status").textContent.endsWith("does not answer")) {
    say(now.error ? `Error: ${now.error.message}` : "The server answers again");
    return;
  }
  if (JSON.stringify(now.steps) === JSON.stringify(state.run.steps)) return;
  const own = step();
  const atEnd = $("step").value === $("step").max;
  state.run = now;
  $("step").max = now.steps.length - 1;
  const place = atEnd ? now.steps.length - 1 : now.steps.findIndex((other) => other >= own);
  $("step").value = place < 0 ? now.steps.length - 1 : place;
  showValues();
  if (step() !== own) await draw();
}

function listen() {
  const onInput = (id, action) => $(id).addEventListener("input", action);
  const onClick = (id, action) => $(id).addEventListener("click", safely(action));
  for (const id of ["step", "truncation", "label", "timeline"]) onInput(id, draw);
  onInput("seed", () => $("seed").value && goTo(seed()));
  onClick("before", () => goTo(seed() - 1));
  onClick("after", () => goTo(seed() + 1));
  onClick("random", () => goTo(randomSeed()));
  for (const name of ["view", "weights", "noise"])
    for (const input of document.querySelectorAll(`input[name=${name}]`))
      input.addEventListener("change", () => {
        state.noiseSeed = randomSeed();
        draw();
      });
  onClick("straighten", () => {
    state.moves = {};
    return draw();
  });
  onClick("learn", watchItLearn);
  onClick("save-image", () => save("image.png", "image.png", one(state.shown)));
  onClick("save-latent", () => save("latent.npy", "latent.npy", one(state.shown)));
  onClick("save-video", () => save("video.mp4", "interpolation.mp4", { ...scene(), images: state.favourites.map((each) => each.picked), frames: FRAMES, frame: null }));
  onClick("keep", keep);
  onClick("find-nearest", findNearest);
  onClick("copy", async () => {
    await navigator.clipboard.writeText($("command").textContent);
    say("Copied");
  });
  $("file").addEventListener("change", safely(async () => {
    const [file] = $("file").files;
    // The same one may be chosen again.
    await project(file).finally(() => ($("file").value = ""));
  }));
  const drop = $("drop");
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", safely((event) => {
    event.preventDefault();
    drop.classList.remove("over");
    return project(event.dataTransfer.files[0]);
  }));
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
}

async function start() {
  state.run = await askJson("run");
  const { workdir, steps, labels } = state.run;
  $("workdir").textContent = workdir;
  document.title = `lwgan: ${workdir}`;
  // A value is cut to what the slider's end is then.
  $("step").max = steps.length - 1;
  $("step").value = $("step").max;
  $("of-labels").hidden = !labels.length;
  const options = [["drawn for each", ""], ...labels.map((name, place) => [name, place])];
  $("label").replaceChildren(...options.map(([name, value]) => new Option(name, value)));
  $("directions-command").textContent = state.run.find_directions;
  readFavourites();
  showFavourites();
  listen();
  await draw();
  setInterval(lookForSteps, 5000);
}

safely(start)();
