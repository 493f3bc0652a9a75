"Pretrained networks: what they are kept and found by, what they restore to, and what they refuse."
import dataclasses, json
from types import SimpleNamespace
import numpy as np, pytest, torch
from PIL import Image
from helpers import has_data
from mlcl.data import Dataset, data_file, load
from mlcl.encoders import (Backbone, backbones, blueprint, frozen_texts, image_tensors, make_encoder, networks,
                           pretrained, restore, stored,
                           tiny_roberta, weights_sha256)
from mlcl.learner import complete, load_trained, train
from mlcl.own.pictures import Files, check_images
from mlcl.verdicts import stratum

WORDS = 'wheat oil corn prices exports rise fall again the of'.split()
TEXTS = [' '.join(np.random.default_rng(i).choice(WORDS, 1 + i % 9)) for i in range(40)]


def words(n_labels=3, sha='texts'):
    y = (np.random.default_rng(0).random((40, n_labels)) < .4).astype(np.uint8)
    y[:n_labels] = np.eye(n_labels)
    return Dataset('toy', 'text', TEXTS, y, list('abcde')[:n_labels], dict(train=np.arange(20), val=np.arange(20, 40)),
                   sha)


def pictures():
    return dataclasses.replace(words(), kind='image',
                               x=np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    tiny_roberta(tmp_path/'net', TEXTS)
    return tmp_path/'net'


# --- features that are kept

def test_pictures_without_a_checksum_are_told_apart():
    "Two fits on equally many pictures must not share their features."
    net = SimpleNamespace(size=8, state_dict=dict)
    def of(seed, sha=''):
        x = np.random.default_rng(seed).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
        return networks._fingerprint(SimpleNamespace(sha256=sha, x=x), net)
    assert of(0) == of(0) != of(1) and of(0, 'x') == of(1, 'x')


def test_damaged_features_are_made_again(tmp_path):
    made = []
    def make(): made.append(1); return np.ones((4, 2), np.float16)
    stored('a.npz', make, tmp_path)
    whole = (tmp_path/'a.npz').read_bytes()
    for wrong in (b'', whole[:-30], b'text'):
        (tmp_path/'a.npz').write_bytes(wrong)
        assert (stored('a.npz', make, tmp_path) == 1).all()
    for wrong in (np.full((4, 2), np.inf), np.full((4, 2), np.nan)):
        np.savez(tmp_path/'a.npz', features=wrong)
        assert stored('a.npz', make, tmp_path).shape == (4, 2)
    assert len(made) == 6 and (stored('a.npz', make, tmp_path) == 1).all() and len(made) == 6
    with pytest.raises(ValueError, match='features: expected numbers that float16 holds'):
        stored('b.npz', lambda: np.full((4, 2), np.inf), tmp_path)
    with pytest.raises(ValueError, match='features: expected 3 rows, got 4'):
        networks.same_rows(np.ones((4, 2)), [1, 2, 3])


def test_features_of_another_tokenizer_or_activation_are_others(folder, tmp_path):
    net = make_encoder(f'hf:{folder}', words())
    frozen_texts(net, TEXTS, tmp_path)
    frozen_texts(net, TEXTS, tmp_path) # the last cut of texts is no part of it
    assert len(list(tmp_path.glob('text-*.npz'))) == 1
    config = json.loads((folder/'config.json').read_text())
    (folder/'config.json').write_text(json.dumps(config | dict(hidden_act='relu')))
    other = make_encoder(f'hf:{folder}', words())
    assert (weights_sha256(other.net) == weights_sha256(net.net)
            and np.abs(frozen_texts(other, TEXTS, tmp_path) - frozen_texts(net, TEXTS, tmp_path)).max() > 0)
    tok = json.loads((folder/'tokenizer.json').read_text())
    tok['model']['vocab']['oil'], tok['model']['vocab']['corn'] = (tok['model']['vocab']['corn'],
                                                                   tok['model']['vocab']['oil'])
    (folder/'tokenizer.json').write_text(json.dumps(tok))
    frozen_texts(make_encoder(f'hf:{folder}', words()), TEXTS, tmp_path)
    assert len(list(tmp_path.glob('text-*.npz'))) == 3


# --- what is restored

def test_a_checkpoint_in_half_precision_is_restored_in_full(folder):
    from transformers import AutoModel
    AutoModel.from_pretrained(folder).half().save_pretrained(folder)
    enc = make_encoder(f'hf:{folder}', words())
    assert {p.dtype for net in (enc, restore(blueprint(enc))) for p in net.parameters()} == {torch.float32}


def test_a_checkpoint_without_a_pooler_is_the_same_each_time(folder, tmp_path, monkeypatch):
    from transformers import RobertaModel
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    RobertaModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    pretrained._network.cache_clear()
    one, two = (make_encoder(f'hf:{folder}', words()) for _ in range(2))
    assert one.weights_sha256 == two.weights_sha256
    t = train(words(), f'hf:{folder}:frozen', 'bce', dict(epochs=1, encoder=dict(length=16, widths=(8,))))
    assert t.predict(TEXTS[:2])['own'].shape == (2, 3) and pretrained._network.cache_info().misses == 1


@pytest.mark.parametrize('name, size', [('efficientnet_b1', 240), ('resnet18', 224)])
def test_a_network_keeps_its_own_size(name, size):
    net = Backbone(name, pretrained=False)
    assert net.size == size == make_encoder(f'tv:{name}', pictures(), pretrained=False).size


def test_colours_are_scaled_as_the_weights_were_made_for():
    with torch.device('meta'): *_, size, mean, std = networks._torchvision('efficientnet_v2_l', False)
    assert (size, mean, std) == (480, (.5, .5, .5), (.5, .5, .5))
    assert not {'squeezenet1_0', 'googlenet'} & set(backbones())


@pytest.mark.parametrize('name', ['mobilenetv3_small_050', 'lcnet_050', 'resnet18'])
def test_the_width_is_what_comes_out(name):
    net = Backbone(f'timm:{name}', pretrained=False, size=32).eval()
    with torch.no_grad(): assert net(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, net.dim)
    assert Backbone(f'timm:{name}', pretrained=False).net.training


def test_a_text_is_cut_at_its_end(folder):
    config = json.loads((folder/'tokenizer_config.json').read_text())
    (folder/'tokenizer_config.json').write_text(json.dumps(config | dict(truncation_side='left')))
    enc = make_encoder(f'hf:{folder}', words(), length=5)
    long = ['wheat oil corn ' + 'again '*9]
    for e in (enc, restore(blueprint(enc))): assert enc.tokenizer.decode(e.prepare(long)[0][0, 1:4]) == 'wheat oil corn'


def test_other_data_are_not_read_by_a_model(folder, tmp_path):
    train(words(), 'bag', 'bce', dict(epochs=1, encoder=dict(min_count=1))).save(tmp_path/'m')
    assert load_trained(tmp_path/'m', words()).outputs('val')['own'].shape == (20, 3)
    for ds, said in ((words(2), 'n_labels 3'), (words(sha='others'), 'data_sha256 texts')):
        with pytest.raises(ValueError, match=f'ds: expected {said}, as in training'): load_trained(tmp_path/'m', ds)


@pytest.mark.skipif(not has_data(), reason='MLCL_DATA NAMES NO DATA FOLDER')
def test_weights_on_this_machine_are_checked(tmp_path, monkeypatch):
    held = data_file(networks.MOBILENET_FILE).read_bytes()
    path = tmp_path/networks.MOBILENET_FILE
    path.parent.mkdir()
    path.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    monkeypatch.setenv('MLCL_DATA', str(tmp_path))
    with pytest.raises(ValueError, match='sha256|checksum'): networks.mobilenet_v2()


# --- what is refused

def test_many_bits_and_thin_pictures(tmp_path):
    for mode, a in (('16', np.arange(4096, dtype=np.uint16).reshape(64, 64)*16), ('32', np.ones((64, 64), np.int32)),
                    ('F', np.ones((64, 64), np.float32))):
        file = tmp_path/f'{mode}.tiff'
        Image.fromarray(a).save(file)
        with pytest.raises(ValueError, match=f'{mode}.tiff .more than 8 bits a channel'): check_images(Files([file]))
    red = np.zeros((1, 5, 3), np.uint8)
    red[..., 0] = 255
    for a in (red, red.swapaxes(0, 1)): assert image_tensors([a], 4)[0].amax((1, 2)).tolist() == [255, 0, 0]
    assert image_tensors([np.full((1, 1), 7, np.uint8), np.full((2, 2, 1), 7, np.uint8)], 2).unique().tolist() == [7]
    for a in (np.zeros((0, 5, 3), np.uint8), np.zeros((2, 2, 2), np.uint8), np.zeros(3, np.uint8),
              np.zeros((2, 2), int)):
        with pytest.raises(ValueError, match='x: expected uint8 pictures'): image_tensors([a], 4)


@pytest.mark.parametrize('length', [0, 1, 2, True, None, 2.5, '64'])
def test_a_length_has_room_for_a_word(folder, length):
    with pytest.raises(ValueError, match='length: expected an integer >= 3'):
        make_encoder(f'hf:{folder}', words(), length=length)


@pytest.mark.parametrize('option', [dict(tokens=0), dict(tokens=True), dict(tokens=float('nan')), dict(bf16='no'),
                                    dict(pooling='max')])
def test_options_of_a_network_of_texts(folder, option):
    with pytest.raises(ValueError, match=f'{[*option][0]}: expected'): make_encoder(f'hf:{folder}', words(), **option)


@pytest.mark.parametrize('option', [dict(size=0), dict(size=-1), dict(size=False), dict(size=32, pretrained='no')])
@pytest.mark.parametrize('name', ['tv:resnet18', 'timm:resnet18'])
def test_options_of_a_network_of_pictures(name, option):
    with pytest.raises(ValueError, match='(size|pretrained): expected'):
        make_encoder(name, pictures(), **dict(pretrained=False) | option)


def test_texts_are_several_strings(folder):
    net = make_encoder(f'hf:{folder}', words())
    for x, said in (('oil', 'expected several, got one'), ([], 'expected at least one'),
                    (['oil', None], 'expected strings, got None'), (['oil', np.nan], 'expected strings'),
                    ([('a', 'b')], 'expected strings')):
        for f in (net.prepare, lambda x: frozen_texts(net, x)):
            with pytest.raises(ValueError, match=f'texts: {said}'): f(x)
    with pytest.raises(ValueError, match='windows: expected'): frozen_texts(net, TEXTS, windows=0)


def test_long_and_empty_texts(folder):
    "A network reads as far as it has places; a tokenizer without special tokens makes nothing of an empty text."
    net = make_encoder(f'hf:{folder}', words()).eval()
    with torch.no_grad(): assert torch.isfinite(net(*net.prepare(['oil '*200, 'corn']))).all()
    tok = json.loads((folder/'tokenizer.json').read_text())
    (folder/'tokenizer.json').write_text(json.dumps(tok | dict(post_processor=None)))
    bare = make_encoder(f'hf:{folder}', words(), pooling='mean').eval()
    with torch.no_grad(): both, none = bare(*bare.prepare(['oil', ''])), bare(*bare.prepare(['', '']))
    assert torch.isfinite(both).all() and not both[1].any() and not none.any()


@pytest.mark.parametrize('setting', [dict(clip=-1), dict(clip=0), dict(clip=float('nan')), dict(clip='1'),
    dict(weight_decay=-1), dict(weight_decay=float('inf')), dict(prior_bias='no'), dict(prior_bias=float('nan')),
    dict(lr=True), dict(head_lr=True), dict(projection=-1), dict(epochs=0), dict(epochs=2.5), dict(batch_size=0),
    dict(warmup=1), dict(precision='half'), dict(loss=None)])
def test_settings_that_could_not_be_loaded_again(setting):
    name, = setting
    with pytest.raises(ValueError, match=rf'^(settings\.)?{name}: expected'): complete(setting)


def test_numbers_of_numpy_are_settings():
    assert complete(dict(lr=np.float32(.5), epochs=np.int64(3))) == complete(dict(lr=.5, epochs=3))
    for seed in (-1, 2**32, True):
        with pytest.raises(ValueError, match='seed: expected 0 to'):
            train(words(), 'bag', 'bce', dict(epochs=1), seed=seed)


def test_a_name_on_the_hub_leads_nowhere_else():
    from mlcl.saved import can_be_loaded
    can_be_loaded('hf:org/net:frozen')
    for name in ('../net', 'a/../b', './net', 'org/..', 'a/b/c'):
        with pytest.raises(ValueError, match='encoder: expected the name of a network on the hub'):
            can_be_loaded(f'hf:{name}:frozen')


def test_a_file_that_cannot_be_read_again_is_not_written(folder, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    t = train(words(), f'hf:{folder}:frozen', 'bce', dict(epochs=1, encoder=dict(length=16, widths=(8,))))
    with pytest.raises(ValueError, match='encoder: expected the name of a network on the hub'): t.save(tmp_path/'m')
    assert not (tmp_path/'m').exists()


@pytest.mark.skipif(not has_data(), reason='MLCL_DATA NAMES NO DATA FOLDER')
def test_a_new_cut_brings_no_repeats_back():
    with pytest.raises(ValueError, match='resplit: expected None with repeats=False'):
        load('debtags', repeats=False, resplit=0)


def test_kinds_of_data_of_all_encoders():
    assert [stratum(e) for e in ('conv', 'mobilenet_v2')] == ['text from scratch', 'pretrained, trained whole']
