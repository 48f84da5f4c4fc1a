/* The planner's controls come after the page, from another process. */
(() => {
  "use strict";
  const hs = window.headscope;

  hs.hears.add(() => {
    const said = document.getElementById("share-said");
    if (said) said.textContent = `${hs.get("share") || said.closest("[data-rest]").dataset.rest} %`;
  });

  window.dash_clientside.headscope.planControls = () => {
    requestAnimationFrame(() => { for (const hear of hs.hears) hear(); });
    return window.dash_clientside.no_update;
  };
})();
