"""The ledger on made-up records with known effects: verdicts, rivals, readouts, evidence; and on the results of
this checkout."""
import json
import re
from pathlib import Path
import numpy as np
import pytest
from scipy.stats import linregress
from mlcl import ledger as led
from mlcl.verdicts import limits, verdict
from mlcl.study import records_of

ROOT = Path(__file__).resolve().parent.parent


def records(effect, dataset='d', n_labels=60, seeds=range(5), readout=None, fraction=1., epochs=10,
            checkpoint='last', **metrics):
    "Every loss scores .5, but those in `effect` score that much more; `readout` alone where it is given."
    losses = {l: .5 for l in (*led.ON_LOGITS, *led.CONTRASTIVE)}
    res = []
    for l, f1 in losses.items():
        for r in ('probe1', 'probe', 'own@.5') if readout is None else [readout]:
            for s in seeds:
                v = f1 + effect.get(l, 0.) + .001*((s*7 + len(l)) % 5)
                m = {k: v for k in ('macro_f1', 'map', 'macro_f1_tail', 'macro_f1_middle', 'macro_f1_head')} | metrics
                res += [dict(id=f'{dataset}/{l}/{r}/{s}/{x}/{checkpoint}/{fraction}', run=f'{dataset}{l}{s}',
                             dataset=dataset, encoder='mlp', loss=l,
                             settings=dict(epochs=epochs), fraction=fraction, seed=s, readout=r, split=x,
                             checkpoint=checkpoint, metrics=m,
                             per_label_f1=[.5]*n_labels if x == 'test' else None) for x in ('val', 'test')]
    return res


def several(effects, **more): return [r for i, e in enumerate(effects) for r in records(e, f'd{i}', **more)]


def ledger_of(stores): return led.decide(led.ledger(stores))
def verdicts(stores): return ledger_of(stores).verdict
def claim(id): return next(c for c in led.CLAIMS if c.id == id)
def around(**gains): return [{l: g*k for l, g in gains.items()} for k in (.9, 1., 1.05, 1.1)]
def family(gain): return dict.fromkeys(led.CONTRASTIVE, gain)


def test_nothing_is_known_without_records():
    t = led.ledger({})
    assert set(t.n_records) == {0} and set(t.n_sets) == {0}
    assert list(dict.fromkeys(t.id)) == ['C1', 'C2a', 'C2b', 'C2c', 'C3', 'C4', 'C5', 'C6a', 'C6b', 'C6c', 'C6d', 'C7',
                                         'C8a', 'C8b', 'C8c', 'C9a', 'C9b', 'C9c', 'C10']
    d = led.decide(t)
    assert (set(d.verdict) == set(d.as_published) == {'open'} and list(d.index[d.primary.astype(bool)])
            == list(led.PRIMARY))


@pytest.mark.parametrize('gain, c1, c3', [(.1, 'holds', 'does not hold'), (-.1, 'does not hold', 'holds')])
def test_signs(gain, c1, c3):
    v = verdicts(dict(labels=several(around(**family(gain)))))
    assert v['C1'] == v['C8a'] == c1 and v['C3'] == c3 and v['C2a'] == 'open' # no set has few labels
    few = verdicts(dict(labels=several(around(**family(gain)), n_labels=20)))
    assert few['C1'] == 'open' and few['C2a'] == c3
    reg = verdicts(dict(labels=several(around(reg=gain))))
    assert reg['C4'] == reg['C5'] == reg['C8b'] == c1


def test_hold_up_is_not_inferior():
    """Contrastive losses ahead by less than the margin: losses on logits hold up. By as much as the margin: open.
    By more: not."""
    def few(*gains): return verdicts(dict(labels=several([family(g) for g in gains], n_labels=20)))['C2a']
    assert (few(.004, .005, .006, .005) == 'holds' and few(.009, .012, .008, .011) == 'open'
            and few(.029, .03, .031, .03) == 'does not hold')


def test_the_best_of_a_family_counts_on_both_sides():
    "One strong loss in each family: they meet each other, whoever they are."
    recs = several(around(wreg=.1, db=.05))
    t = led.evidence(claim('C1'), dict(labels=recs))
    assert set(t.a) == {'wreg'} and set(t.b) == {'db'} and verdicts(dict(labels=recs))['C1'] == 'holds'
    sides = led.rivals(claim('C1'), dict(labels=recs))
    assert list(sides) == ['best of six − best of six', 'REG − BCE', 'REG − ASL', 'REG − ZLPR', 'REG − best of three']
    assert sides['best of six − best of six']['mean'] > .04 and abs(sides['REG − BCE']['mean']) < .01
    assert len(led.ON_LOGITS) == len(led.CONTRASTIVE) == 6


def test_mixed_signs_are_open():
    assert verdicts(dict(labels=several([family(.1), family(-.1), family(.02)])))['C1'] == 'open'


def test_buckets_and_prototypes():
    v = verdicts(dict(labels=several(around(abalone=.1, wreg=-.1))))
    assert (v['C9a'], v['C9b'], v['C9c'], v['C10'], v['C8a']) == ('holds',)*3 + ('does not hold', 'practically equal')


def test_readings_that_differ():
    low = several(around(**dict.fromkeys(led.LOGITS, -.2)), readout='own@.5')
    level = [r for name in ('probe1', 'probe') for r in several([{}, family(.02), family(-.02), {}], readout=name)]
    d = ledger_of(dict(labels=low + level))
    assert d.verdict['C1'] == 'open' and d.as_published['C1'] == 'holds'
    apart = [r for name, g in (('probe1', .1), ('probe', -.1)) for r in several(around(**family(g)), readout=name)]
    assert verdicts(dict(labels=apart + low))['C1'] == 'open'
    one = [r for name, g in (('probe1', .1), ('probe', 0.)) for r in several(around(**family(g)), readout=name)]
    assert ledger_of(dict(labels=one + low)).reading['C1'] == 'second' # the larger p is shown


def test_holm_covers_the_primary_claims_alone():
    "A gain that is clear by itself and not as one of eight."
    recs = several([dict(reg=g) for g in (.005, .03, .035, .065, -.002, .03)])
    t = led.ledger(dict(labels=recs))
    r = next(r for _, r in t.iterrows() if (r.id, r.reading) == ('C5', 'first'))
    assert (verdict(r) == 'holds' and led.decide(t).verdict['C5'] == 'open'
            and led.decide(t, ()).verdict['C5'] == 'holds')
    assert led.decide(t).lower['C5'] < limits(r)[0]


def test_strata_keep_kinds_apart():
    "Texts far above, feature vectors level: the mean has the interval of the differences within a kind."
    text = [dict(r, encoder='bag') for r in several([dict(reg=.1), dict(reg=.101), dict(reg=.099)])]
    flat = [dict(r, dataset='f' + r['dataset'], id='f' + r['id'])
            for r in several([{}, dict(reg=.001), dict(reg=-.001)])]
    r = led.row(claim('C5'), dict(labels=flat + text))
    assert r['mean'] == pytest.approx(.05, abs=2e-3) and r['se'] < .001 and r['df'] == 4
    assert led.row(claim('C5'), dict(labels=flat + text), strata=False)['se'] > .01


def test_who_wins_takes_tuned_and_an_ingredient_matched_settings():
    stores = dict(labels=several([family(.1)]*2), tuned=records(family(-.1), 'd0'))
    t = led.evidence(claim('C1'), stores).set_index('dataset')
    assert t.study.to_dict() == dict(d0='tuned', d1='labels') and t['mean']['d0'] < 0 < t['mean']['d1']
    stores = dict(labels=several([dict(reg=.1)]*2), tuned=records(dict(reg=-.1), 'd0'))
    assert set(led.evidence(claim('C5'), stores).study) == {'labels'}
    assert set(led.evidence(led.AT_FIRST[4], stores).study) == {'tuned', 'labels'} and led.AT_FIRST[4].id == 'C5'


def solved(effect, **more):
    "Records of `matched`: the solved probe on two taps; logits have the features alone."
    taps = [r for name in ('features', 'projection')
            for r in records(effect[name], readout=f'linear@{name}|each', **more)]
    return [r for r in taps if led.embeds(r['loss']) or 'features' in r['readout']]


def test_the_solved_probe_on_two_taps():
    "The first reading is at the features; the second at the projection, where a loss has one. Two seeds are needed."
    stores = dict(matched=solved(dict(features=dict(proto=.1), projection=dict(proto=.2))), labels=records({}))
    assert led.by_readout('second', claim('C8a'), 'matched') == ('linear@projection|each', 'linear@features|each')
    first, second = (led.evidence(claim('C8a'), stores, r) for r in ('first', 'second'))
    assert (first.study.tolist() == ['matched'] and first['mean'][0] == pytest.approx(.1, abs=3e-3)
            and second['mean'][0] == pytest.approx(.2, abs=3e-3))
    stores['matched'] = [r for r in stores['matched'] if r['seed'] == 0]
    assert led.evidence(claim('C8a'), stores).study.tolist() == ['labels']


def whole(effect, dataset, head_lr=None, **more):
    """Records of whole pretrained networks, of the losses that this study has; `head_lr`: those with a rate of
    their own."""
    recs = [r for v in ('linear@features|each', 'linear@projection|each', 'linear@features|global',
                        'linear@projection|global', 'own@.5') for r in records(effect, dataset, readout=v, **more)]
    settings = {l: dict(lr=1e-4, head_lr=(head_lr or {}).get(l, 1e-3))
                for l in ('bce', 'zlpr', 'asl', 'proto', 'reg', 'wreg')}
    names = dict(asl='asl1')
    return [dict(r, loss=names.get(r['loss'], r['loss']), encoder='hf:net', settings=settings[r['loss']]) for r in recs
            if r['loss'] in settings]


def test_one_regime_alone():
    gains = dict(reg=.04, proto=.03, wreg=.02)
    recs = [r for i in range(4) for r in whole({l: g*(1 + i/10) for l, g in gains.items()}, f'd{i}', dict(bce=1e-2)
                                               if i else None)]
    d = led.of_study('pretrained', recs)
    assert d.verdict[['C1', 'C5', 'C8b']].tolist() == ['holds']*3 and d.n_sets[['C1', 'C5']].tolist() == [4, 4]
    assert 'C4' not in d.index and 'C10' not in d.index # their losses are not there
    assert d.sets['C8a'] == 'd0' # elsewhere BCE has another rate
    assert d.n_sets['C2a'] == 0 and d.verdict['C2a'] == 'open' # no set with few labels
    assert led.of_study('pretrained', [r for r in recs if r['seed'] == 0]).n_sets.max() == 0 # one seed is no evidence
    assert led.of_study('pretrained', [r for r in recs if r['loss'] != 'reg']).as_published['C1'] == 'open'
    assert led.evidence(claim('C1'), dict(pretrained=recs)).empty # never pooled with the others


def test_as_published_takes_the_studys_own_asl():
    "`asl1` where the records have it; else BCE and ZLPR. ASL with its own publication's settings is no rival."
    low = dict.fromkeys(led.LOGITS, -.2) | dict(asl=.3)
    stores = dict(labels=several(around(**low), readout='own@.5') + several([{}]*4, readout='probe'))
    assert (set(led.as_published(claim('C1')).others) == {'bce', 'asl1', 'zlpr'}
            and led.as_published(claim('C1')).a == 'reg')
    assert set(led.evidence(led.as_published(claim('C1')), stores, 'as published').b) <= {'bce', 'zlpr'}
    asl1 = [dict(r, loss='asl1', id=r['id'] + '1') for r in stores['labels']
            if (r['loss'], r['readout']) == ('asl', 'own@.5')]
    t = led.evidence(led.as_published(claim('C1')), dict(labels=stores['labels'] + asl1), 'as published')
    assert set(t.b) == {'asl1'} and t['mean'].max() < -.2


def test_one_seed_is_passed_over():
    stores = dict(labels=records(family(-.1), 'd', seeds=[0]), first=records(family(.1), 'd', seeds=[0, 1]))
    t = led.evidence(claim('C1'), stores)
    assert t.study.tolist() == ['first'] and t['mean'][0] > 0
    assert led.evidence(claim('C1'), dict(labels=stores['labels'])).empty


def test_first_edition_reads_as_before():
    "REG against the best of three, tuned sides, no correction: what the first rules called 'does not hold'."
    stores = dict(tuned=several(around(reg=-.02)), labels=several([{}]*4))
    before, now = led.first_edition(stores), ledger_of(stores)
    assert before.verdict['C5'] == 'does not hold' and now.verdict['C5'] == 'practically equal'
    assert before.verdict['C1'] == 'does not hold' and not before.primary.any()


def test_slope_over_sizes():
    recs = [r for i, k in enumerate((10, 20, 40, 80)) for r in records(dict(reg=.02*np.log2(k)), f'd{i}', n_labels=k)]
    r = led.by_size(dict(labels=recs))
    assert r['mean'] == pytest.approx(.02, abs=1e-3) and verdict(r) == 'holds' and r['n_sets'] == 4
    assert led.slope([1, 2, 3], [2., 4., 6.])['mean'] == pytest.approx(2.)
    x, y = np.array([1., 2., 4., 5.]), np.array([1., 3., 4., 7.])
    fit = linregress(x, y)
    assert [led.slope(x, y)[k] for k in ('mean', 'se')] == pytest.approx([fit.slope, fit.stderr])
    jump = [r if i < 2 else dict(r, encoder='bag') for i, k in enumerate((10, 20, 40, 80))
            for r in records(dict(reg=.1*(i > 1) + .01*np.log2(k)), f'd{i}', n_labels=k)]
    assert led.by_size(dict(labels=jump))['mean'] == pytest.approx(.01, abs=1e-3) # within kinds of data
    assert led.by_size(dict(labels=jump), strata=False)['mean'] > .03


def curve(stores, id): return next(r for r in led.by_curve(stores) if r['id'] == id)


def test_scarce_data():
    def at(d, k, o=0.):
        return [r for f in (.05, .1, .2, .5, 1.) for r in records(dict(reg=o - k*np.log2(f)), d, fraction=f)]
    stores = dict(scarce=at('a', .01) + at('b', .012) + at('c', .011))
    r = curve(stores, 'C6a')
    assert (verdict(r, r['sign']) == 'holds' and r['mean'] == pytest.approx(-.011, abs=1e-3) and r['n_sets'] == 3
            and r['sets'] == 'a, b, c')
    r = curve(dict(scarce=at('a', -.01)), 'C6b')
    assert verdict(r, r['sign']) == 'does not hold' and verdict(curve(stores, 'C6c')) == 'holds'
    r = curve(dict(scarce=at('a', .01, -.1) + at('b', .01, -.11)), 'C6d') # falls, but lies below
    assert limits(r)[1] < 0 and verdict(r) == 'open' and r['mean'] == pytest.approx(-.105 + .01*np.log2(20)/2, abs=2e-3)
    # two points are no curve
    assert curve(dict(scarce=[r for r in at('a', .01) if r['fraction'] > .2]), 'C6a')['n_sets'] == 0
    # of test instances, the same for all seeds: five shares, 400 resamples
    noise = np.random.default_rng(0).normal(0, .03, (5, 400))
    def made(r, f):
        return (dict(r, replicates=dict(macro_f1=list(r['metrics']['macro_f1'] + noise[f]*(r['loss'] == 'reg'))))
                if r['split'] == 'test' else r)
    shares = [.05, .1, .2, .5, 1.]
    # seeds do not differ
    x, recs = np.log2(shares), [r | dict(metrics=dict(macro_f1=round(r['metrics']['macro_f1'], 1)))
                                for r in at('a', .01)]
    slope, area = (x - x.mean())/((x - x.mean())**2).sum(), np.r_[x[1] - x[0], x[2:] - x[:-2], x[-1] - x[-2]]
    for f, w in (led.fall, slope), (led.height, area/2/(x[-1] - x[0])):
        t = led.trend([made(r, shares.index(r['fraction'])) for r in recs], lambda r: np.log2(r['fraction']), f,
                      led.Claim('', '', 'reg', ('zlpr',))).iloc[0]
        assert (t.upper - t.lower)/2 == pytest.approx(1.96*(w@noise).std(ddof=1), rel=.02)
    assert (led.height([0., 1., 3.], [0., 2., 2.]) == pytest.approx(5/3) and led.fall([0, 1, 2], [1., 3., 5.])
            == pytest.approx(2.))


def test_cut_to_fewer_labels():
    "The rival is chosen for each number of labels, on validation data."
    recs = [r | dict(id=f'{r["id"]}/{k}', settings=dict(data=dict(top=k))) for k in (5, 10, 20, 40)
            for r in records(dict(reg=.01*np.log2(k)), 'one', n_labels=k)]
    r = curve(dict(cut=recs), 'C2c')
    assert (verdict(r) == 'holds' and r['mean'] == pytest.approx(.01, abs=1e-3) and r['sets'] == 'one'
            and r['n_records'] == 4*5*2)
    best = next(r for r in led.by_curve(dict(cut=recs), checkpoint='best') if r['id'] == 'C2c')
    assert best['n_sets'] == 0 # the study has no best epoch


def test_norms_of_gradients():
    "Less variation of PROTO's gradient norm counts for the claim; losses without a history count for nothing."
    def with_curves(proto, d):
        main = records({}, d)
        return main + [dict(r, id=f'{d}{l}{s}', loss=l, seed=s, readout='online', split='val', per_label_f1=None,
                            history=[dict(grad_norm=n, grad_norm_std=cv*n + .001*s) for n in (1., 2.)])
                       for r in main[:1] for l, cv in (('proto', proto), ('bce', .5)) for s in range(3)]
    for proto, want in ((.2, 'holds'), (.8, 'does not hold')):
        r = led.row(next(c for c in led.CLAIMS if c.id == 'C8c'),
                    dict(labels=with_curves(proto, 'a') + with_curves(proto + .01, 'b')
                         + with_curves(proto + .005, 'c')))
        assert verdict(r, r['sign']) == want and r['mean'] == pytest.approx(proto - .5 + .005, abs=2e-3)
    assert led.steady(records({})) == []


def test_long_training():
    recs = [r for i in range(3) for c, e in (('last', dict(zlpr=-.1)), ('best', {}))
            for r in records(e, f'd{i}', epochs=400, checkpoint=c)]
    assert verdict(led.by_time(dict(long=recs))) == 'holds'
    assert led.by_time(dict(long=[r | dict(settings=dict(epochs=40)) for r in recs]))['n_sets'] == 0


def test_results_of_this_checkout():
    stores = {s: records_of(s) for s in ('matched', *led.MAIN)}
    d, by_id = ledger_of(stores), {c.id: c for c in led.CLAIMS}
    for i, r in d.iterrows():
        give = by_id[i].give if i in by_id else 0.
        if not r.n_sets: assert r.verdict == 'open'
        sign = by_id[i].sign if i in by_id else 1
        low, high = sorted(sign*v for v in (r.lower, r.upper)) # in the direction that the claim gives
        if r.verdict == 'holds': assert low > -give
        if r.verdict == 'does not hold': assert high < (-give if i not in led.SLOPES else 0)
        if r.verdict == 'practically equal': assert abs(r.effect) < led.MARGIN
    assert d.n_sets.max() > 10 and (d.verdict != 'open').sum() > 3
    assert {i for ids in led.standing(d).values() for i in ids} == set(d.index)


def test_table_in_words():
    "A row a claim; data sets are named where that is asked for."
    d = ledger_of(dict(labels=several(around(**family(.1)))))
    plain, named = led.in_words(d).splitlines(), led.in_words(d, sets=True).splitlines()
    assert len(plain) == len(named) == len(d) + 2 and all(r.count('|') == 8 for r in plain)
    row = next(r for r in named if r.startswith('| **C1** |')) # a primary claim
    assert f'| {led.interval(d.loc["C1"])} |' in row and 'd0, d1, d2' in row and '| holds |' in row
    assert (not any('d0' in r for r in plain)
            and '| – | 1 | – | open |' in next(r for r in plain if r.startswith('| C7 |')))


def test_pages_agree():
    "The home page and the README count the verdicts that the ledger prints."
    def printed(name):
        return "\n".join("".join(o.get("data", {}).get("text/markdown", ""))
                         for c in json.loads((ROOT/"nbs"/name).read_text(encoding="utf-8"))["cells"]
                         for o in c.get("outputs", ()))
    words = re.findall(r"^#### .+ \{#([\w-]+)\}\n\n((?:- C.*\n?)*|None\.)", printed("90_ledger.ipynb"), re.M)
    count = {w: len(re.findall(r"^- C", claims, re.M)) for w, claims in words}
    assert (list(count) == ["holds", "practically-equal", "does-not-hold", "open"]
            and sum(count.values()) == len(led.decide(led.ledger({}))))
    assert {w: int(n) for n, w in re.findall(r"\[(\d+) [^]]+\]\(90_ledger\.ipynb#([\w-]+)\)",
                                             printed("index.ipynb"))} == count
    readme = (ROOT/"README.md").read_text(encoding="utf-8")
    assert [int(n) for n in re.findall(r"\[(\d+) [^]]+\]\(nbs/90_ledger\.ipynb\)", readme)] == list(count.values())


def test_what_is_no_reading_and_no_curve():
    with pytest.raises(ValueError, match="reading: expected one of first, second, as published, probe1, probe, "
                                         "got 'third'"):
        led.by_readout('third', claim('C1'))
    with pytest.raises(ValueError, match='x: expected rising numbers'): led.height([3, 1, 2], [1, 1, 1])
    with pytest.raises(ValueError, match='t: expected claims of `ledger`, got none'): led.decide(led.pd.DataFrame())
    for held in ([], records(dict(reg=0.))):
        some = [r for r in held if r['loss'] == 'reg']
        with pytest.raises(ValueError, match='records: expected both sides of a claim, got (none|reg)'):
            led.of_study('pretrained', some)


def test_rankings_are_read_where_their_resamples_are():
    assert led.by_readout('first', claim('C3'), 'matched') == 2*('linear@features|global',)
    assert led.by_readout('first', claim('C1'), 'matched') == 2*('linear@features|each',)


@pytest.mark.parametrize('other', [dict(epochs=5), dict(lr=2.), dict(head_lr=.1), dict(loss=dict(temperature=1.))])
def test_an_ingredient_has_all_else_equal(other):
    both = [dict(dataset='x', loss=l, settings=dict(epochs=3, lr=1., loss=dict(temperature=.1, alpha=a))
                 | (other if l == 'proto' else {})) for l, a in (('reg', 0), ('proto', 0))]
    assert led.at_equal_rates(both, {'reg', 'proto'}) == []
    # what one side alone has
    both[1]['settings'] = dict(both[0]['settings'], loss=dict(temperature=.1), prior_bias=True)
    assert led.at_equal_rates(both, {'reg', 'proto'}) == both
