// Charts: each <figure class="chart"> holds its specification. Ctrl and wheel are left to the page.
for (const figure of document.querySelectorAll("figure.chart")) {
  const spec = JSON.parse(figure.querySelector("script").textContent);
  const options = { renderer: "svg", actions: false, tooltip: { theme: "custom" }, loader: { target: "_self" } };
  vegaEmbed(figure.querySelector("div"), spec, options).then(
    () => {
      figure.classList.add("drawn");
      // the page grew above what its address names
      if (location.hash === "#" + figure.id) figure.scrollIntoView();
    },
    (error) => console.error(error),
  );
}
