"The ledger on made-up records with known effects: verdicts, rivals, readouts, evidence; and on the results of this checkout."
import json
import re
from pathlib import Path
import numpy as np
import pytest
from mlcl import ledger as led
from mlcl.study import records_of

ROOT = Path(__file__).resolve().parent.parent


def records(effect, dataset='d', n_labels=60, seeds=range(5), readout=None, fraction=1., epochs=10, checkpoint='last', **metrics):
    "Every loss scores .5, but those in `effect` score that much more; `readout` alone where it is given."
    losses = {l: .5 for l in ('bce', 'asl', 'zlpr', 'base', 'mulsupcon', 'abalone', 'wreg', 'proto', 'reg')}
    res = []
    for l, f1 in losses.items():
        for r in ('probe1', 'probe', 'own@.5') if readout is None else [readout]:
            for s in seeds:
                v = f1 + effect.get(l, 0.) + .001*((s*7 + len(l)) % 5)
                m = {k: v for k in ('macro_f1', 'map', 'macro_f1_tail', 'macro_f1_middle', 'macro_f1_head')} | metrics
                res += [dict(id=f'{dataset}/{l}/{r}/{s}/{x}/{checkpoint}/{fraction}', run=f'{dataset}{l}{s}', dataset=dataset, encoder='mlp', loss=l,
                             settings=dict(epochs=epochs), fraction=fraction, seed=s, readout=r, split=x, checkpoint=checkpoint, metrics=m,
                             per_label_f1=[.5]*n_labels if x == 'test' else None) for x in ('val', 'test')]
    return res


def several(effects, **more): return [r for i, e in enumerate(effects) for r in records(e, f'd{i}', **more)]


def verdicts(stores): return led.decide(led.ledger(stores)).verdict


def test_nothing_is_known_without_records():
    t = led.ledger({})
    assert set(t.verdict) == {'no evidence yet'} and set(t.n_records) == {0}
    assert list(dict.fromkeys(t.id)) == ['C1', 'C2a', 'C2b', 'C2c', 'C3', 'C4', 'C5', 'C6a', 'C6b', 'C6c', 'C6d', 'C7', 'C8a', 'C8b', 'C8c', 'C9a', 'C9b', 'C9c', 'C10']
    assert set(led.decide(t).verdict) == {'no evidence yet'}


@pytest.mark.parametrize('gain, c1, c3', [(.1, 'holds', 'does not hold'), (-.1, 'does not hold', 'holds')])
def test_signs(gain, c1, c3):
    v = verdicts(dict(labels=several([dict(reg=gain), dict(reg=gain*1.1), dict(reg=gain*.9)])))
    assert v['C1'] == v['C4'] == v['C5'] == v['C8b'] == c1 and v['C3'] == c3 and v['C2a'] == 'no evidence yet'
    few = verdicts(dict(labels=several([dict(reg=gain), dict(reg=gain*1.1), dict(reg=gain*.9)], n_labels=20)))
    assert few['C1'] == 'no evidence yet' and few['C2a'] == c3


def test_mixed_signs_are_undecided():
    assert verdicts(dict(labels=several([dict(reg=.1), dict(reg=-.1), dict(reg=.02)])))['C1'] == 'undecided'


def test_buckets_and_prototypes():
    v = verdicts(dict(labels=several([dict(abalone=.1, wreg=-.1)]*3)))
    assert (v['C9a'], v['C9b'], v['C9c'], v['C10'], v['C8a']) == ('holds',)*3 + ('does not hold', 'undecided')


def test_readouts_that_differ():
    low = several([dict(bce=-.2, asl=-.2, zlpr=-.2)]*3, readout='own@.5')
    level = [r for name in ('probe1', 'probe') for r in several([{}, dict(reg=.01), dict(reg=-.01)], readout=name)]
    d = led.decide(led.ledger(dict(labels=low + level)))
    assert d.verdict['C1'] == 'undecided' and d.as_published['C1'] == 'holds (differs)'
    apart = [r for name, g in (('probe1', .1), ('probe', -.1)) for r in several([dict(reg=g)]*3, readout=name)]
    assert led.decide(led.ledger(dict(labels=apart + low))).verdict['C1'] == 'undecided (readouts differ)'


def test_tuned_settings_come_first_and_are_never_mixed():
    stores = dict(labels=several([dict(reg=.1)]*2), tuned=records(dict(reg=-.1), 'd0'))
    t = led.evidence(led.CLAIMS[0], stores).set_index('dataset')
    assert t.study.to_dict() == dict(d0='tuned', d1='labels') and t['mean']['d0'] < 0 < t['mean']['d1']


def test_one_seed_is_passed_over():
    stores = dict(labels=records(dict(reg=-.1), 'd', seeds=[0]), first=records(dict(reg=.1), 'd', seeds=[0, 1]))
    t = led.evidence(led.CLAIMS[0], stores)
    assert t.study.tolist() == ['first'] and t['mean'][0] > 0
    assert led.evidence(led.CLAIMS[0], dict(labels=stores['labels'])).empty


def test_slope_over_sizes():
    recs = [r for i, k in enumerate((10, 20, 40, 80)) for r in records(dict(reg=.02*np.log2(k)), f'd{i}', n_labels=k)]
    r = led.by_size(dict(labels=recs))
    assert r['mean'] == pytest.approx(.02, abs=1e-3) and r['verdict'] == 'holds' and r['n_sets'] == 4
    assert led.slope([1, 2, 3], [2., 4., 6.])['mean'] == pytest.approx(2.)


def curve(stores, id): return next(r for r in led.curves(stores) if r['id'] == id)


def test_scarce_data():
    def at(d, k, o=0.): return [r for f in (.05, .1, .2, .5, 1.) for r in records(dict(reg=o - k*np.log2(f)), d, fraction=f)]
    stores = dict(scarce=at('a', .01) + at('b', .012) + at('c', .011))
    r = curve(stores, 'C6a')
    assert r['verdict'] == 'holds' and r['mean'] == pytest.approx(-.011, abs=1e-3) and r['n_sets'] == 3 and r['sets'] == 'a, b, c'
    assert curve(dict(scarce=at('a', -.01)), 'C6b')['verdict'] == 'does not hold'
    assert curve(stores, 'C6c')['verdict'] == 'holds'
    r = curve(dict(scarce=at('a', .01, -.1) + at('b', .01, -.11)), 'C6d') # falls, but lies below
    assert r['verdict'] == 'does not hold' and r['mean'] == pytest.approx(-.105 + .01*np.log2(20)/2, abs=2e-3)
    assert curve(dict(scarce=[r for r in at('a', .01) if r['fraction'] > .2]), 'C6a')['verdict'] == 'no evidence yet' # two points are no curve
    noise = np.random.default_rng(0).normal(0, .03, (5, 400)) # of test instances, the same for all seeds: five shares, 400 resamples
    def made(r, f): return dict(r, replicates=dict(macro_f1=list(r['metrics']['macro_f1'] + noise[f]*(r['loss'] == 'reg')))) if r['split'] == 'test' else r
    shares = [.05, .1, .2, .5, 1.]
    x, recs = np.log2(shares), [r | dict(metrics=dict(macro_f1=round(r['metrics']['macro_f1'], 1))) for r in at('a', .01)] # seeds do not differ
    for f, w in (led.fall, (x - x.mean())/((x - x.mean())**2).sum()), (led.height, np.r_[x[1] - x[0], x[2:] - x[:-2], x[-1] - x[-2]]/2/(x[-1] - x[0])):
        t = led.trend([made(r, shares.index(r['fraction'])) for r in recs], lambda r: np.log2(r['fraction']), f, led.Claim('', '', 'reg', ('zlpr',))).iloc[0]
        assert (t.upper - t.lower)/2 == pytest.approx(1.96*(w@noise).std(ddof=1), rel=.02)
    assert led.height([0., 1., 3.], [0., 2., 2.]) == pytest.approx(5/3) and led.fall([0, 1, 2], [1., 3., 5.]) == pytest.approx(2.)


def test_cut_to_fewer_labels():
    "The rival is chosen for each number of labels, on validation data."
    recs = [r | dict(id=f'{r["id"]}/{k}', settings=dict(data=dict(top=k))) for k in (5, 10, 20, 40) for r in records(dict(reg=.01*np.log2(k)), 'one', n_labels=k)]
    r = curve(dict(cut=recs), 'C2c')
    assert r['verdict'] == 'holds' and r['mean'] == pytest.approx(.01, abs=1e-3) and r['sets'] == 'one' and r['n_records'] == 4*5*2
    best = next(r for r in led.curves(dict(cut=recs), checkpoint='best') if r['id'] == 'C2c')
    assert best['verdict'] == 'no evidence yet' # the study has no best epoch


def test_norms_of_gradients():
    "Less variation of PROTO's gradient norm counts for the claim; losses without a history count for nothing."
    def with_curves(proto, d):
        main = records({}, d)
        return main + [dict(r, id=f'{d}{l}{s}', loss=l, seed=s, readout='online', split='val', per_label_f1=None,
                            history=[dict(grad_norm=n, grad_norm_std=cv*n + .001*s) for n in (1., 2.)])
                       for r in main[:1] for l, cv in (('proto', proto), ('bce', .5)) for s in range(3)]
    for proto, want in ((.2, 'holds'), (.8, 'does not hold')):
        r = led.row(next(c for c in led.CLAIMS if c.id == 'C8c'), dict(labels=with_curves(proto, 'a') + with_curves(proto + .01, 'b')))
        assert r['verdict'] == want and r['mean'] == pytest.approx(proto - .5 + .005, abs=2e-3)
    assert led.steady(records({})) == []


def test_long_training():
    recs = [r for i in range(3) for c, e in (('last', dict(zlpr=-.1)), ('best', {})) for r in records(e, f'd{i}', epochs=400, checkpoint=c)]
    assert led.by_time(dict(long=recs))['verdict'] == 'holds'
    assert led.by_time(dict(long=[r | dict(settings=dict(epochs=40)) for r in recs]))['verdict'] == 'no evidence yet'


def test_results_of_this_checkout():
    stores = {s: records_of(s) for s in led.MAIN}
    for r in led.ledger(stores).itertuples():
        assert (r.n_sets == 0) == (r.verdict == 'no evidence yet')
        if r.verdict in ('holds', 'does not hold'): assert r.lower > 0 or r.upper < 0


def test_table_in_words():
    "A row a claim; data sets are named where that is asked for."
    d = led.decide(led.ledger(dict(labels=several([dict(reg=.1), dict(reg=.11), dict(reg=.09)]))))
    plain, named = led.in_words(d).splitlines(), led.in_words(d, sets=True).splitlines()
    assert len(plain) == len(named) == len(d) + 2 and all(r.count('|') == 7 for r in plain)
    row = next(r for r in named if r.startswith('| C1 |'))
    assert f'| {d.effect["C1"]} {d.interval["C1"]} |' in row and 'd0, d1, d2' in row and '| holds |' in row
    assert not any('d0' in r for r in plain) and '| – | – | no evidence yet |' in next(r for r in plain if r.startswith('| C7 |'))


def test_pages_agree():
    "The home page and the README count the verdicts that the ledger prints."
    def printed(name): return "\n".join("".join(o.get("data", {}).get("text/markdown", "")) for c in json.loads((ROOT/"nbs"/name).read_text(encoding="utf-8"))["cells"] for o in c.get("outputs", ()))
    words = re.findall(r"^#### .+ \{#([\w-]+)\}\n\n((?:- C.*\n?)*|None\.)", printed("90_ledger.ipynb"), re.M)
    count = {w: len(re.findall(r"^- C", claims, re.M)) for w, claims in words}
    assert list(count) == ["holds", "practically-equal", "does-not-hold", "open"] and sum(count.values()) == len(led.decide(led.ledger({})))
    assert {w: int(n) for n, w in re.findall(r"\[(\d+) [^]]+\]\(90_ledger\.ipynb#([\w-]+)\)", printed("index.ipynb"))} == count
    readme = (ROOT/"README.md").read_text(encoding="utf-8")
    assert [int(n) for n in re.findall(r"\[(\d+) [^]]+\]\(nbs/90_ledger\.ipynb\)", readme)] == list(count.values())
