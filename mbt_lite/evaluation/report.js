document.querySelectorAll('table.sortable').forEach(table => {
  table.querySelectorAll('thead th').forEach((head, column) => {
    const button = document.createElement('button');
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.onclick = () => {
      const up = head.getAttribute('aria-sort') === 'descending';
      table.querySelectorAll('thead th').forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const text = row => row.children[column].textContent;
      const order = (a, b) => column ? text(b) - text(a) : text(b).localeCompare(text(a));
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => up ? order(b, a) : order(a, b)));
    };
  });
});
