// No script stands in the page: its policy allows files of this server only.
SwaggerUIBundle({
  url: "/api/docs-json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayOperationId: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  // Its default asks a service on the internet what it thinks of the document.
  validatorUrl: null,
});
