"""The pages of the dashboard, one module each (see ``page.Page``)."""
