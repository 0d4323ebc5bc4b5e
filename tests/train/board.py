"""What a TensorBoard on a folder shows: its own reader and plugins, without a server."""

import json

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client


class Board:
    """A TensorBoard whose ``--logdir`` is the folder."""

    def __init__(self, logdir):
        self.logdir, self.multiplexer = str(logdir), EventMultiplexer()
        self.provider = MultiplexerDataProvider(self.multiplexer, self.logdir)
        self.reload()

    def reload(self):
        """Read what was written since."""
        self.multiplexer.AddRunsFromDirectory(self.logdir)
        self.multiplexer.Reload()
        return self

    def curve(self, run, tag):
        """Return the steps and values of a curve."""
        events = self.multiplexer.Tensors(run, tag)
        return [(event.step, round(event.tensor_proto.float_val[0], 6)) for event in events]

    def image_steps(self, run, tag):
        """Return the steps of a tag's pictures."""
        return [event.step for event in self.multiplexer.Tensors(run, tag)]

    def ask(self, plugin, route, **query):
        """Return what a plugin answers, JSON as a value and other content as text."""
        app = plugin(TBContext(data_provider=self.provider, logdir=self.logdir)).get_plugin_apps()[route]
        answer = Client(app).get("/", query_string=query)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text) if answer.mimetype == "application/json" else answer.data
