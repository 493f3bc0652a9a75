"The catalogue of studies: well formed, as the pages say, and the published runs are still theirs."
import json, sys
from pathlib import Path
import pytest
from mlcl import study
from mlcl.losses import LOSSES
from mlcl.study import Store


RESULTS = Path(__file__).parent.parent/'results'
PUBLISHED = sorted({p.stem for p in RESULTS.glob('*.parquet')} & set(study.STUDIES))
EARLIER = dict(pretrained=4) # runs of one learning rate for all layers, from before the search

@pytest.mark.parametrize('name', PUBLISHED)
def test_published_runs_are_still_those_of_their_study(name):
    "A study that is complete finds all of its runs; one that is not asks for all that are there."
    held, asked = {r['run'] for r in Store(RESULTS/name).records(['run'])}, {e.id for e in study.experiments(name)}
    assert len(held & asked) == min(len(held) - EARLIER.get(name, 0), len(asked)) > 0

def test_most_studies_have_records(): assert len(PUBLISHED) > 15


def test_matched_is_equal_but_for_the_loss():
    es = study.experiments('matched')
    assert len(es) == len({e.id for e in es}) == (12 + 8)*10*5
    for d in (*study.LABELS, *study.BROAD):
        same = {study.canonical({k: v for k, v in e.settings.items() if k != 'loss'}) for e in es if e.dataset == d}
        assert len(same) == 1 and json.loads(same.pop())['lr'] == (study.LABELS.get(d) or study.BROAD[d].settings)['lr']
    both = {e.loss: e.settings['loss'] for e in es if e.loss in ('asl', 'asl1', 'reg', 'wreg')}
    assert ([both['asl1'][k] for k in ('gamma_neg', 'gamma_pos', 'margin')] == [1, 0, 0]
            and [both['asl'][k] for k in ('gamma_neg', 'gamma_pos', 'margin')] == [4, 1, .05])
    assert [both['reg'][k] for k in ('temperature', 'alpha')] == [both['wreg'][k] for k in ('temperature', 'alpha')]
    assert [e.seed for e in es] == sorted(e.seed for e in es)
    text = {e.id: e for e in study.experiments('text')}
    for e in (e for e in es if e.encoder == 'bag' and e.seed in study.SEEDS and e.loss != 'asl1'): # but for the readout
        twin = study.Experiment(e.dataset, 'bag', e.loss, {k: v for k, v in e.settings.items() if k != 'probe'}
                                | study.LARGE.get(e.dataset, {}), e.fraction, e.seed)
        assert twin.id in text


@pytest.mark.parametrize('name', list(study.STUDIES))
def test_studies_are_well_formed(name):
    for quick in False, True:
        es = study.experiments(name, quick)
        assert len({e.id for e in es}) == len(es) and (es or name.startswith('tuned')) and study.STUDIES[name].about


def test_shares_and_lengths_are_as_the_pages_say():
    es = study.experiments('scarce')
    by = {f: {e.settings['epochs'] for e in es if e.fraction == f and e.dataset == 'reuters90'} for f in study.SHARES}
    assert by == {.01: {240}, .02: {240}, .05: {240}, .1: {240}, .2: {150}, .5: {60}, 1.: {30}}
    assert [e.seed for e in es] == sorted(e.seed for e in es) and {e.loss for e in es} == {'bce', 'zlpr', 'reg'}
    assert {e.settings['epochs'] for e in study.experiments('long')} == {10, 40, 100, 400}
    assert {(e.encoder, e.loss) for e in study.experiments('transformer')} == {('transformer', l)
                                                                               for l in ('bce', 'zlpr', 'reg')}
    assert {e.settings['finetune'] for e in study.experiments('finetuned')} == {10, 5, 7}
    for name, n in (('text', 5), ('images', 3)): assert len(study.experiments(name)) == n*15*3
    assert len(study.FIFTEEN) == 15 and {e.loss for e in study.experiments('labels')} == set(study.FIFTEEN)


def test_encoder_settings_of_all_studies():
    "What a study would refuse only after its start: names of augmentations."
    from mlcl.encoders import AUGMENTATIONS
    names = {e.settings['encoder'].get('augment', 'none') for s in study.STUDIES for e in study.experiments(s)}
    assert names <= set(AUGMENTATIONS) and 'light' in names


def test_selection():
    assert [e.seed for e in study.experiments('smoke', only='seed=1,loss=reg')] == [1]
    for text, said in [('seed=9', 'only: seed: expected one of 0, 1'), ('lass=reg', 'only: key'), ('reg', 'key=value')]:
        with pytest.raises(ValueError, match=said): study.experiments('smoke', only=text)
    with pytest.raises(ValueError, match='study: expected one of'): study.experiments('quik')


def test_a_study_has_a_name_of_its_own(monkeypatch):
    monkeypatch.setattr(sys.modules['mlcl.study.catalog'], 'STUDIES', dict(study.STUDIES))
    def another() -> list: "one more"
    def smoke() -> list: "read in again, as in a notebook"
    smoke.__module__ = '__main__'
    def silent(): return []
    study.study('another')(another)
    study.study('smoke')(smoke)
    for name, make, said in [('smoke', another, "name: expected one that no study has, got 'smoke', .* by smoke"),
                             ('a/b', another, "name: expected letters.* got 'a/b'"), (3, another, 'name: .* got 3'),
                             ('more', silent, 'study more: expected a docstring')]:
        with pytest.raises(ValueError, match=said): study.study(name)(make)


def test_larger_study_differs_in_size_alone():
    small = {(e.dataset, e.loss): e for e in study.experiments('pretrained')}
    large = {(e.dataset, e.loss): e for e in study.experiments('pretrained_large')}
    assert {d for d, _ in large} == set(study.PRETRAINED) and len(large) == 7*len(LOSSES)
    for k in [k for k in small if k[1] in ('bce', 'reg')]:
        a, b = ({k: v for k, v in e.settings.items() if k not in ('data', 'encoder')} for e in (small[k], large[k]))
        size = large[k].settings['encoder']
        assert a == b and large[k].fraction == 1
        assert (size.get('length'), size.get('size')) in [(256, None), (None, 224)]
    assert large['reuters90', 'sincere'].settings['lr'] == large['reuters90', 'reg'].settings['lr']
