from flwr.app import Context, RecordDict

from client.app import _own_data
from config import parse


def test_a_node_has_its_files_somewhere_else():
    config = parse({"data.vocab-file": "/server/vocab.txt", "data.seed": 3, "model.dim": 32})

    def seen(**node):
        context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config={})
        own = _own_data(config, context)
        assert (own.data.seed, own.model.dim) == (3, 32)
        return own.data.data_dir, own.data.vocab_file, own.model.embedding_dir

    assert seen() == ("", "/server/vocab.txt", "")
    assert seen(**{"data-dir": "/a"}) == ("/a", "/server/vocab.txt", "")
    assert seen(**{"vocab-file": "/b", "embedding-dir": "/c"}) == ("", "/b", "/c")
