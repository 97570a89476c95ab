"""The client for web pages: an ES module without a build step, and what serves it.

`js/` holds the module as browsers get it; `files` puts it at `/milepost/client.js`.
Nothing of Milepost's is imported here.
"""
