"Sweeps for mlcl.stats: known answers, scipy as the reference, refusals."
import numpy as np
import pandas as pd
import pytest
from scipy import stats as ss

from mlcl.metrics import bootstrap, replicates, resample
from mlcl.stats import (_variances, _within, as_text, behind, effect, effects, fold_interval, friedman, leaderboard,
                        mean_error, mean_interval, paired, pooled, score_table,
                        wilcoxon)
from mlcl.metrics import pack, unpack
from mlcl.verdicts import (MARGIN, NOTHING, _known, _quantiles, by_stratum, hierarchical, holm, leave_out, limits,
                           own_error, p_value, smallest, stratified, unequal,
                           verdict, within, witnesses)


@pytest.mark.parametrize('n', [2, 3, 5, 30])
@pytest.mark.parametrize('level', [.5, .9, .95, .99])
def test_mean_interval_is_the_t_interval(n, level):
    v = np.random.default_rng(n).normal(.5, .1, n)
    ci = ss.ttest_1samp(v, 0).confidence_interval(level)
    assert mean_interval(v, level=level) == pytest.approx((v.mean(), ci.low, ci.high), abs=1e-12)


def test_mean_interval_known_answers():
    assert mean_interval([1., 1., 1.]) == (1., 1., 1.)
    z = ss.norm.ppf(.975)
    assert mean_interval([.7], .01) == pytest.approx((.7, .7 - .1*z, .7 + .1*z))
    assert mean_interval([.7, .7, .7], [.01, .02, .03]) == pytest.approx((.7, .7 - z*.02**.5, .7 + z*.02**.5))
    assert mean_interval([.6, .8], 0.) == pytest.approx(mean_interval([.6, .8]))
    v = np.array([.6, .7, .8])  # b = .01/3, w = .01/3: Satterthwaite's degrees of freedom are 8
    half = ss.t.ppf(.975, 8)*(.02/3)**.5
    assert mean_interval(v, .01/3) == pytest.approx((.7, .7 - half, .7 + half))


@pytest.mark.parametrize('call,message', [
    (lambda: mean_interval([.5]), 'values: '), (lambda: mean_interval([]), 'values: '),
    (lambda: mean_interval([[.5, .6]]), 'values: '),
    (lambda: mean_interval([.5, np.nan]), 'values: '), (lambda: mean_interval([.5, .6], -1.), 'within: '),
    (lambda: mean_interval([.5, .6], [.1]*3), 'within: '), (lambda: mean_interval([.5, .6], np.inf), 'within: '),
    (lambda: mean_interval([.5, .6], level=95), 'level: ')])
def test_mean_interval_refuses(call, message):
    with pytest.raises(ValueError, match=f'^{message}expected'): call()


def predictions(n=60, n_labels=5, n_seeds=3, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.random((n, n_labels)) < .3).astype(np.uint8)
    flip = lambda share: [np.where(rng.random(y.shape) < share, 1 - y, y) for _ in range(n_seeds)]
    return y, flip(.1), flip(.2)


@pytest.mark.parametrize('metric', ['micro_f1', 'macro_f1', 'hamming', 'map', 'lrap'])
@pytest.mark.parametrize('method', ['bootstrap', 't'])
@pytest.mark.parametrize('n_seeds', [1, 2, 3, 5])
def test_paired(metric, method, n_seeds):
    y, a, b = predictions(n_seeds=n_seeds)
    r, back = paired(y, a, b, metric, method, n=200), paired(y, b, a, metric, method, n=200)
    once = np.ones((1, len(y)))
    want = [replicates(y, i, once, metric)[0] - replicates(y, j, once, metric)[0] for i, j in zip(a, b)]
    assert r['per_seed'] == pytest.approx(want, abs=1e-6) and r['mean'] == pytest.approx(np.mean(want), abs=1e-6)
    assert r['n_seeds'] == n_seeds and r['lo'] < r['mean'] < r['hi'] and r == paired(y, a, b, metric, method, n=200)
    assert [back['mean'], back['lo'], back['hi']] == pytest.approx([-r['mean'], -r['hi'], -r['lo']], abs=1e-9)


@pytest.mark.parametrize('method', ['bootstrap', 't'])
def test_paired_with_itself_is_zero(method):
    y, a, _ = predictions()
    r = paired(y, a, a, method=method, n=50)
    assert (r['mean'], r['lo'], r['hi'], r['per_seed']) == (0., 0., 0., [0., 0., 0.])


def test_paired_bootstrap_equals_the_loop():
    y, a, b = predictions(n=25)
    n, s, counts = 40, 3, resample(25, 40, 7)
    draws = np.random.default_rng([7, 1]).multinomial(s - 1, np.full(s, 1/s), size=n)
    values = []
    for c, d in zip(counts, draws):
        rows = np.repeat(np.arange(25), c.astype(int))
        f = lambda p: replicates(y[rows], p[rows], np.ones((1, 25)), 'macro_f1')[0]
        values.append(np.mean([f(a[i]) - f(b[i]) for i in np.repeat(np.arange(s), d)]))
    r = paired(y, a, b, method='bootstrap', n=n, seed=7)
    assert [r['lo'], r['hi']] == pytest.approx(2*r['mean'] - np.quantile(values, [.975, .025]), abs=1e-6)


def test_paired_one_seed_is_the_instance_bootstrap():
    y, a, _ = predictions(n_seeds=1)
    r = paired(y, a, [0*y], method='bootstrap', n=300, seed=4)  # a difference from zero: Macro-F1 of nothing is 0
    assert (r['lo'], r['hi']) == pytest.approx(bootstrap(y, a[0], n=300, seed=4), abs=1e-6)


@pytest.mark.parametrize('sign', [-1, 1])
def test_paired_sees_a_clear_difference(sign):
    y, a, b = predictions(n=400)
    r = paired(y, *((a, b) if sign > 0 else (b, a)), n=200)
    assert sign*r['lo'] > 0 and sign*r['hi'] > 0


@pytest.mark.parametrize('call,message', [
    (lambda y, a, b: paired(y, a, b[:2]), 'b: '), (lambda y, a, b: paired(y, [], []), 'b: '),
    (lambda y, a, b: paired(y, a, b, 'f1'), 'metric: '), (lambda y, a, b: paired(y, a, b, method='z'), 'method: '),
    (lambda y, a, b: paired(y, a, b, level=0), 'level: '),
    (lambda y, a, b: paired(y, [i[:, :2] for i in a], b), 'pred: ')])
def test_paired_refuses(call, message):
    with pytest.raises(ValueError, match=f'^{message}expected'): call(*predictions())


def record(dataset='yeast', loss='reg', seed=0, f1=.6, readout='probe', half=None, **more):
    m = dict(macro_f1=f1, map=f1 + .1) | (dict(macro_f1_lo=f1 - half, macro_f1_hi=f1 + half)
                                          if half is not None else {})
    return dict(id=f'{dataset}{loss}{seed}', run=str(seed), dataset=dataset, encoder='mlp', loss=loss,
                settings=dict(lr=1e-3), fraction=1.,
                seed=seed, readout=readout, checkpoint='last', split='test', metrics=m) | more


def test_leaderboard_known_answer():
    recs = [record(loss=l, seed=s, f1=f + .01*s) for l, f in dict(bce=.5, reg=.6).items() for s in range(3)]
    t = leaderboard(recs, 'macro_f1', 'probe')
    assert t.columns.tolist() == ['dataset', 'loss', 'mean', 'lower', 'upper', 'n_seeds']
    assert t.loss.tolist() == ['reg', 'bce'] and t.n_seeds.tolist() == [3, 3]
    half = ss.t.ppf(.975, 2)*.01/3**.5
    assert t[['mean', 'lower', 'upper']].to_numpy() == pytest.approx(np.array([[.61, .61 - half, .61 + half],
                                                                               [.51, .51 - half, .51 + half]]))


def test_leaderboard_pools_test_intervals():
    recs = [record(seed=s, f1=f, half=.04) for s, f in enumerate([.6, .62, .64])]
    t = leaderboard(recs, 'macro_f1', 'probe')
    want = mean_interval([.6, .62, .64], (.04/ss.norm.ppf(.975))**2)
    assert t[['mean', 'lower', 'upper']].to_numpy()[0] == pytest.approx(want)
    assert leaderboard(recs, 'map').lower[0] > t.lower[0]


def test_leaderboard_filters_and_rows():
    recs = [record(seed=s, readout=r, split=p, checkpoint=c, f1=.5 + .1*(r == 'probe') + .2*(p == 'val')
                   + .05*(c == 'best') + .01*s)
            for s in range(2) for r in ('probe', 'own@.5') for p in ('val', 'test') for c in ('last', 'best')]
    recs.append(dict(recs[0], metrics=None, readout=None, split=None, error=dict(kind='E')))
    assert leaderboard(recs)['mean'].tolist() == pytest.approx([.605, .505])
    assert leaderboard(recs, readout='probe', split='val', checkpoint='best')['mean'].tolist() == pytest.approx([.855])


def test_leaderboard_order_and_text():
    recs = [record(d, l, s, f1=f + .001*s) for d, o in dict(b=0, a=.1).items() for l, f in dict(x=.2, y=.4).items()
            for s in range(2)]
    t = leaderboard(recs, readout='probe')
    assert t.dataset.tolist() == list('aabb') and t.loss.tolist() == list('yxyx')
    wide = as_text(t)
    assert wide.columns.tolist() == ['a', 'b'] and wide.loc['y', 'a'].startswith('0.401 [')
    lone = as_text(leaderboard(recs + [record('c', 'x')], readout='probe'))
    assert lone.loc['x', 'c'] == '0.600' and lone.loc['y', 'c'] == '–'


def test_leaderboard_one_seed():
    t = leaderboard([record()], readout='probe')
    assert t[['lower', 'upper']].isna().all(axis=None) and t.n_seeds[0] == 1
    t = leaderboard([record(half=.05)], readout='probe')
    assert (t.lower[0], t.upper[0]) == pytest.approx((.55, .65))


@pytest.mark.parametrize('field,value', [('encoder', 'cnn'), ('fraction', .1), ('settings', dict(lr=.1))])
def test_leaderboard_never_mixes(field, value):
    recs = [record(), record(seed=1), record(seed=2, **{field: value})]
    with pytest.raises(ValueError, match=f'^by: .*{field}'): leaderboard(recs)
    assert len(leaderboard(recs, by=('dataset', 'loss', field))) == 2


@pytest.mark.parametrize('call,message', [
    (lambda: leaderboard([record(), record()]), 'records: '), (lambda: leaderboard([]), 'records: '),
    (lambda: leaderboard([record()], readout='x'), 'records: '), (lambda: leaderboard([record()], 'f1'), 'metric: ')])
def test_leaderboard_refuses(call, message):
    with pytest.raises(ValueError, match=f'^{message}expected'): call()


def test_leaderboard_skips_missing_values():
    recs = [record(loss=l, seed=s) for l in 'ab' for s in range(2)]
    for r in recs[:2]: r['metrics']['macro_f1_tail'] = None
    for r in recs[2:]: r['metrics']['macro_f1_tail'] = .3
    t = leaderboard(recs, 'macro_f1_tail')
    assert isinstance(t, pd.DataFrame) and t.loss.tolist() == ['b']


@pytest.mark.parametrize('n_seeds', [3, 5])
@pytest.mark.parametrize('ratio', [.3, 1., 3.])
def test_pooled_interval_covers(n_seeds, ratio):
    rng = np.random.default_rng(n_seeds)
    values = rng.normal(size=(1000, 1)) + ratio*rng.normal(size=(1000, n_seeds))
    hits = [lo <= 0 <= hi for _, lo, hi in (mean_interval(v, 1.) for v in values)]
    assert .92 <= np.mean(hits) <= .98


@pytest.mark.parametrize('n_seeds', [2, 3, 6])
@pytest.mark.parametrize('shared,own', [(1., .2), (.5, 2.)])
def test_variance_of_the_instances_is_unbiased(n_seeds, shared, own):
    rng, n = np.random.default_rng(0), 40_000
    diff = rng.normal(0, shared**.5, (1, n)) + rng.normal(0, own**.5, (n_seeds, n))
    assert _variances(np.zeros(n_seeds), diff) == pytest.approx(shared, rel=.05)


def test_seeds_that_agree_by_chance_do_not_narrow_an_interval():
    "The whole variance is at least that of the means of the resamples; with seeds that differ nothing is added."
    rng = np.random.default_rng(0)
    diff = rng.normal(0, .01, (3, 1000))
    least = diff.mean(0).var(ddof=1)
    mean, lo, hi = mean_interval(np.full(3, .02), _within(np.full(3, .02), diff))
    assert (hi - lo)/2 == pytest.approx(1.96*least**.5, rel=1e-3)
    apart = np.array([-.03, 0, .03])
    assert _within(apart, diff) == _variances(apart, diff)


# ---- many data sets

def made(dataset='d', losses=dict(reg=.5, bce=.4, zlpr=.45), seeds=range(3), val=None, **more):
    "Records of both splits; `val` gives other validation scores."
    rng, res = np.random.default_rng(0), []
    noise = rng.normal(0, .01, 50)
    for loss, f1 in losses.items():
        for s in seeds:
            common = dict(dataset=dataset, loss=loss, seed=s, readout='probe1', checkpoint='last', encoder='mlp',
                          fraction=1., settings={}) | more
            res += [dict(common, id=f'{dataset}{loss}{s}v', split='val', metrics=dict(macro_f1=(val or losses)[loss])),
                    dict(common, id=f'{dataset}{loss}{s}t', split='test', metrics=dict(macro_f1=f1 + .01*s),
                         replicates=dict(macro_f1=pack(f1 + .01*s + noise + rng.normal(0, .002, 50))))]
    return res


def test_the_rival_is_chosen_on_validation_data_alone():
    assert effect(made(), 'd', 'reg', ['bce', 'zlpr'])['b'] == 'zlpr'
    e = effect(made(val=dict(reg=.1, bce=.9, zlpr=.2)), 'd', 'reg', ['bce', 'zlpr'])
    assert e['b'] == 'bce' and e['mean'] == pytest.approx(.1) and e['lower'] < .1 < e['upper'] and len(e['ids']) == 6


def test_packed_replicates_give_the_same_interval():
    packed = made()
    plain = [r | (dict(replicates=dict(macro_f1=list(unpack(r['replicates']['macro_f1']))))
                  if 'replicates' in r else {}) for r in packed]
    assert effect(plain, 'd', 'reg', ['bce']) == effect(packed, 'd', 'reg', ['bce'])
    narrow, none = (effect(packed, 'd', 'reg', ['bce']),
                    effect([{k: v for k, v in r.items() if k != 'replicates'} for r in packed], 'd', 'reg', ['bce']))
    # seeds alone, equal differences
    assert none['mean'] == narrow['mean'] and none['upper'] == pytest.approx(none['lower'], abs=1e-12)


def test_effect_refuses_mixed_settings():
    with pytest.raises(ValueError, match='settings'):
        effect(made() + made(settings=dict(lr=1), seeds=[7]), 'd', 'reg', ['bce'])
    with pytest.raises(ValueError, match='records: expected some of asl'): effect(made(), 'd', 'reg', ['asl'])


def test_effects_take_complete_data_sets_and_count_shared_documents_once():
    recs = made('a') + made('b', dict(reg=.3, bce=.35)) + made('aapd') + made('arxiv_cs54')
    assert set(effects(recs, 'reg', ['bce']).dataset) == {'a', 'b', 'aapd'}
    assert set(effects(recs, 'reg', ['bce', 'zlpr']).dataset) == {'a', 'aapd'}
    assert set(effects(recs, 'reg', ['bce'], ['b']).dataset) == {'b'}
    alone = made('arxiv_cs54') + [r for r in made('aapd') if r['loss'] == 'bce'] # of the two only one has both losses
    assert set(effects(alone, 'reg', ['bce']).dataset) == {'arxiv_cs54'} == set(effects(recs, 'reg', ['bce'],
                                                                                        ['arxiv_cs54']).dataset)
    assert (list(score_table(recs).index) == ['a', 'aapd'] and list(score_table(recs, losses=['bce', 'reg']).index)
            == ['a', 'aapd', 'b'])


def test_pooled():
    t = pd.DataFrame(dict(mean=[.02, .03, .07], n_seeds=[5, 3, 5], ids=[['a', 'b'], ['c'], ['d']]))
    p, ci = pooled(t), ss.ttest_1samp(t['mean'], 0).confidence_interval(.95)
    assert ([p['mean'], p['lower'], p['upper']] == pytest.approx([.04, ci.low, ci.high])
            and (p['n_sets'], p['n_seeds'], p['n_records']) == (3, 3, 4))
    one = pooled(pd.DataFrame([effect(made(), 'd', 'reg', ['bce'])]))
    assert one['n_sets'] == 1 and one['lower'] == effect(made(), 'd', 'reg', ['bce'])['lower']
    with pytest.raises(ValueError, match='^table: expected'): pooled(t[:0])


def test_a_family_is_chosen_on_validation_data_on_both_sides():
    val = dict(reg=.1, bce=.9, zlpr=.2, wreg=.3)
    e = effect(made(losses=dict(reg=.5, bce=.4, zlpr=.45, wreg=.3), val=val), 'd', ['reg', 'wreg'], ['bce', 'zlpr'])
    assert (e['a'], e['b'], e['encoder']) == ('wreg', 'bce', 'mlp') and e['mean'] == pytest.approx(-.1)
    assert set(effects(made('x') + made('y', dict(reg=.5, bce=.4)), ['reg', 'zlpr'], ['bce']).dataset) == {'x'}


# ---- from effects to verdicts

def table(means, encoders='mlp', datasets=None, seeds=5, noise=.001, spread=None):
    "A table of effects: seeds around each mean, evenly, with a known variance."
    steps = np.linspace(-1, 1, seeds)*noise
    datasets = datasets or [f's{k}' for k in range(len(means))]
    encoders = [encoders]*len(means) if isinstance(encoders, str) else encoders
    return pd.DataFrame([dict(dataset=d, encoder=e, mean=m, se=.1, df=40., n_seeds=seeds,
                              by_seed=dict(enumerate(m + steps)),
                              spread={} if spread is None else spread, ids=[d])
                         for d, e, m in zip(datasets, encoders, means)])


def test_one_stratum_is_the_t_test():
    v = np.array([.01, .02, .05, -.01, .03])
    r, t = stratified(table(v)), ss.ttest_1samp(v, 0)
    assert limits(r) == pytest.approx(tuple(t.confidence_interval(.95))) and p_value(r) == pytest.approx(t.pvalue)
    assert p_value(r, .02) == pytest.approx(ss.ttest_1samp(v, .02).pvalue)


def test_strata_are_a_linear_model():
    """Sum-coded strata weighted by their size: the mean of all, and the residual variance of the model with one
    mean for each."""
    import statsmodels.formula.api as smf
    rng = np.random.default_rng(0)
    kinds = ['mlp']*6 + ['bag']*4 + ['mobilenet_v2:frozen']*3
    t = table(rng.normal(0, .02, 13) + np.repeat([0., .1, -.05], [6, 4, 3]), kinds)
    fit = smf.ols('mean ~ C(encoder) - 1', t).fit()
    weights = t.encoder.value_counts(normalize=True).sort_index().to_numpy()
    test = fit.t_test(weights)
    r = stratified(t)
    assert [r['mean'], r['se'], r['df']] == pytest.approx([test.effect[0], test.sd[0, 0], fit.df_resid])
    assert p_value(r) == pytest.approx(float(test.pvalue))
    apart = by_stratum(t)
    assert (list(apart) == ['feature vectors', 'text from scratch', 'frozen pictures']
            and apart['text from scratch']['n_sets'] == 4)
    assert stratified(t, strata=False)['se'] > 1.5*r['se']


def test_a_spread_for_each_stratum_is_welchs_test():
    "Two strata of equal size: half of Welch's sum, with his degrees of freedom; one stratum: the plain t test."
    rng = np.random.default_rng(1)
    a, b = rng.normal(.02, .01, 6), rng.normal(0, .08, 6)
    r, welch = unequal(table([*a, *b], ['mlp']*6 + ['bag']*6)), ss.ttest_ind(a, -b, equal_var=False)
    assert r['df'] == pytest.approx(welch.df) and p_value(r) == pytest.approx(welch.pvalue)
    assert unequal(table(a)) == pytest.approx(stratified(table(a)))
    lone = unequal(table([*a, .3], ['mlp']*6 + ['bag']))  # a stratum of one source has the common spread
    part = np.array([6, 1])*a.var(ddof=1)/49
    assert lone['se'] == pytest.approx(part.sum()**.5) and lone['df'] == pytest.approx(part.sum()**2/(part**2/5).sum())
    assert unequal(table([])) == NOTHING and unequal(table([.3])) == stratified(table([.3]))
    assert np.isnan(unequal(table([.1, .2], ['mlp', 'bag']))['se']) and unequal(table([.1, .1, .1]))['se'] == 0


def test_what_the_sets_own_errors_make_of_the_mean():
    assert own_error(table([.1, .2, .3, .4])) == pytest.approx(.1/2)
    shared = table([.1, .2, .4], datasets=['coco18', 'coco_words', 'c'])
    assert own_error(shared) == pytest.approx((2*(.1/2)**2 + .1**2)**.5/2)
    assert (own_error(shared.assign(se=[np.nan, .1, .1])) == pytest.approx(((.1/2)**2 + .1**2)**.5/2)
            and np.isnan(own_error(table([]))))


def test_sets_that_share_a_source_count_once():
    t = table([.1, .2, .4], datasets=['coco18', 'coco_words', 'c'])
    w = witnesses(t)
    assert w['mean'].tolist() == pytest.approx([.15, .4]) and list(w.index) == ['coco18', 'c']
    r = stratified(t)
    assert (r['n_sets'], r['n_sources'], r['df']) == (3, 2, 1) and r['mean'] == pytest.approx(.275)
    assert set(leave_out(t)) == {'coco18', 'c'} and leave_out(t)['coco18']['mean'] == pytest.approx(.4)


def test_nothing_and_too_little_is_open():
    assert stratified(table([])) == NOTHING and verdict(NOTHING) == 'open' and p_value(NOTHING) == 1.
    lone = stratified(table([.1, .2], ['mlp', 'bag']))
    assert np.isnan(lone['se']) and verdict(lone) == 'open' and np.isnan(smallest(lone))
    assert verdict(dict(mean=.1, se=1e-6, df=1)) == 'open' and not within(dict(mean=0., se=1e-6, df=1))
    own = stratified(table([.3]))  # a single set keeps its own interval
    half = ss.t.ppf([.975, .95], 40)*.1
    assert (limits(own) == pytest.approx((.3 - half[0], .3 + half[0]))
            and limits(own, .9) == pytest.approx((.3 - half[1], .3 + half[1])))
    assert 0 < smallest(own | dict(df=np.inf)) < smallest(own)


@pytest.mark.parametrize('mean, se, sign, give, said', [
    (.02, .005, 1, 0., 'holds'), (.02, .005, -1, 0., 'does not hold'), (-.02, .005, 1, 0., 'does not hold'),
    (-.02, .005, -1, 0., 'holds'),
    (.001, .003, 1, 0., 'practically equal'), (.001, .003, -1, 0., 'practically equal'), (.001, .01, 1, 0., 'open'),
    (.009, .005, 1, 0., 'open'),
    (.004, .002, -1, .01, 'holds'), (.004, .002, -1, 0., 'practically equal'), (.03, .005, -1, .01, 'does not hold'),
    (.015, .005, -1, .01, 'open'),
    (-.004, .002, 1, .01, 'holds'), (-.03, .005, 1, .01, 'does not hold'), (np.nan, np.nan, 1, 0., 'open')])
def test_verdict(mean, se, sign, give, said):
    assert verdict(dict(mean=mean, se=se, df=30), sign, give) == said


def test_verdict_by_hand():
    "With many degrees of freedom: 1.96 standard errors decide, 1.645 make equal."
    one = dict(mean=.0196, se=.01, df=10**7)
    assert verdict(one | dict(mean=.0197)) == 'holds' and verdict(one | dict(mean=.0195)) == 'open'
    assert verdict(one | dict(mean=.0197), level=.99) == 'open'
    assert within(dict(mean=0., se=.00607, df=10**7)) and not within(dict(mean=0., se=.00609, df=10**7))
    assert verdict(dict(mean=0., se=.00607, df=10**7), equal=0) == 'open'
    with pytest.raises(ValueError, match='^sign: expected'): verdict(one, 0)
    with pytest.raises(ValueError, match='^level: expected'): verdict(one, level=95)


def test_two_one_sided_tests():
    "`within` rejects both one-sided nulls at 5 %, as two t tests do."
    rng = np.random.default_rng(3)
    for k in range(200):
        v = rng.normal(.004, .012, 9)
        p = max(ss.ttest_1samp(v, -MARGIN, alternative='greater').pvalue,
                ss.ttest_1samp(v, MARGIN, alternative='less').pvalue)
        assert within(stratified(table(v))) == (p < .05)


def test_holm_by_hand():
    h = holm(dict(a=.5, b=.004, c=.02, d=.015))
    assert h.p_holm.to_dict() == pytest.approx(dict(b=.016, d=.045, c=.045, a=.5))
    assert h.level.to_dict() == pytest.approx(dict(b=1 - .05/4, d=1 - .05/3, c=1 - .05/2, a=.95))
    stopped = holm(dict(a=.03, b=.2, c=.04))
    assert (stopped.level.tolist() == pytest.approx([1 - .05/3]*3)
            and stopped.p_holm.to_dict() == pytest.approx(dict(a=.09, c=.09, b=.2)))
    with pytest.raises(ValueError, match='^p: expected'): holm({})


@pytest.mark.parametrize('seed', range(20))
def test_an_interval_at_holms_level_agrees_with_its_p(seed):
    rng = np.random.default_rng(seed)
    rs = {i: dict(mean=rng.normal(0, .02), se=.008, df=12) for i in 'abcdefgh'}
    h = holm({i: p_value(r) for i, r in rs.items()})
    for i, r in rs.items():
        if h.p_holm[i] <= .05: assert not limits(r, h.level[i])[0] <= 0 <= limits(r, h.level[i])[1]


@pytest.mark.parametrize('n', [3, 8, 19])
@pytest.mark.parametrize('power', [.5, .8, .95])
def test_smallest_effect_is_found_as_often_as_said(n, power):
    true = smallest(dict(mean=0., se=.03/n**.5, df=n - 1), power=power)
    draws = np.random.default_rng(n).normal(true, .03, (20_000, n))
    assert np.mean(ss.ttest_1samp(draws, 0, axis=1).pvalue < .05) == pytest.approx(power, abs=.012)


def test_known_variance():
    one = table([.1], noise=.01)  # five even steps from -.01 to .01: variance .0000625
    assert _known(one).tolist() == pytest.approx([.0000625/5])
    noise = np.random.default_rng(0).normal(0, .01, 4000)
    shared = {s: (.1 + noise).tolist() for s in range(5)}  # the luck of the test set, the same for all seeds
    assert _known(table([.1], noise=.01, spread=shared))[0] == pytest.approx(.0000625/5 + noise.var(ddof=1), rel=1e-6)


def test_hierarchical_conjugate():
    "No spread between sets and strata: the posterior is that of one normal mean with known variances."
    t, scales = table([.02, .03, .01], noise=.02), dict(mu=.05, omega=1e-9, tau=1e-9)
    v = _known(t)
    precision = (1/v).sum() + 1/.05**2
    m = hierarchical(t, scales=scales)
    assert m['mean'] == pytest.approx((t['mean']/v).sum()/precision, rel=1e-5)
    assert m['upper'] - m['lower'] == pytest.approx(2*1.959964*precision**-.5, rel=1e-4)
    assert m['new_upper'] == pytest.approx(m['upper'], abs=1e-6)  # sets do not differ
    assert m['above'] == pytest.approx(ss.norm.sf((.01 - m['mean'])*precision**.5), rel=1e-3)
    assert m['below'] + m['within'] + m['above'] == pytest.approx(1)
    with pytest.raises(ValueError, match='^table: expected'): hierarchical(table([]))


@pytest.mark.parametrize('mean', [-.03, 0., .03])
@pytest.mark.parametrize('tau', [.001, .02])
def test_hierarchical_covers(mean, tau):
    "Simulated studies with a known mean: 95 % intervals of the mean and of a new set hold what they promise, roughly."
    rng, hits = np.random.default_rng([3, int(1000*tau)]), []
    for _ in range(60):
        t = table(mean + tau*rng.standard_normal(12), ['mlp', 'bag']*6, noise=.003)
        m = hierarchical(t)
        hits.append((m['lower'] <= mean <= m['upper'], m['new_lower'] <= mean + tau*rng.standard_normal()
                     <= m['new_upper']))
    assert np.mean(hits, 0).min() >= .88


def test_hierarchical_counts_a_shared_source_once():
    "Two sets of one source that agree: less evidence than two sources, where sources may differ as much as sets."
    alone, shared = (hierarchical(table([.03]*6, datasets=d))
                     for d in (list('abcdef'), ['coco18', 'coco_words', *'cdef']))
    assert shared['upper'] - shared['lower'] > alone['upper'] - alone['lower']


def test_hierarchical_agrees_with_a_sampler():
    numpyro = pytest.importorskip('numpyro')
    import jax
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS
    t = table([.01, .03, -.02, .05, .02, .06, .01, .04], ['mlp', 'bag']*4, noise=.01)
    kind, v, y = np.array([0, 1]*4), _known(t), t['mean'].to_numpy()

    def model():
        mu, omega, tau = (numpyro.sample('mu', dist.Normal(0, .05)), numpyro.sample('omega', dist.HalfNormal(.02)),
                          numpyro.sample('tau', dist.HalfNormal(.03)))
        b = numpyro.sample('b', dist.Normal(0, 1).expand([2]))
        numpyro.deterministic('mean', mu + omega*b.mean())
        numpyro.sample('y', dist.Normal(mu + omega*b[kind], (tau**2 + v)**.5), obs=y)

    run = MCMC(NUTS(model, target_accept_prob=.95), num_warmup=500, num_samples=4000, progress_bar=False)
    run.run(jax.random.PRNGKey(0))
    mean, m = np.asarray(run.get_samples()['mean']), hierarchical(t)
    assert m['mean'] == pytest.approx(mean.mean(), abs=.001)
    assert [m['lower'], m['upper']] == pytest.approx(np.quantile(mean, [.025, .975]), abs=.003)
    assert m['above'] == pytest.approx((mean > .01).mean(), abs=.03)


def test_quantiles_of_a_mixture():
    lower, upper = _quantiles(np.array([.5, .5]), np.array([-1., 1.]), np.array([1e-6, 1e-6]))
    assert (lower, upper) == pytest.approx((-1, 1), abs=1e-4)
    assert _quantiles(np.ones(1), np.zeros(1), np.ones(1)) == pytest.approx((-1.959964, 1.959964), abs=1e-5)


def test_behind_names_each_run_once():
    recs = [dict(id=f'{run}/{readout}/last/test') for run in ('b'*16, 'a'*16) for readout in ('probe', 'probe1')]
    pytest.importorskip('IPython')
    assert behind(recs).data == behind(r['id']
                                       for r in recs).data == ('Behind this: 2 runs, whose records are in '
                                                     '`results/` ([how to look them up](95_reproduce.ipynb)).')
    assert behind(recs[:1]).data.startswith('Behind this: 1 run,')
    with pytest.raises(ValueError, match='^records: expected'): behind([])


DEMSAR = pd.DataFrame([  # Demšar (2006), table 6; "voting" is tied in print and was ranked from more digits
    [.763, .768, .771, .798], [.599, .591, .590, .569], [.954, .971, .968, .967], [.628, .661, .654, .657],
    [.882, .888, .886, .898],
    [.936, .931, .916, .931], [.661, .668, .609, .685], [.583, .583, .563, .625], [.775, .838, .866, .875],
    [1., 1., 1., 1.],
    [.940, .962, .965, .962], [.619, .666, .614, .669], [.972, .981, .97501, .975], [.957, .978, .946, .970]],
                      columns=list('abcd'))


def test_friedman_on_the_published_example():
    f = friedman(DEMSAR)
    assert f['ranks'][list('abcd')].tolist() == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert f['cd'] == pytest.approx(1.25, abs=5e-3) and friedman(DEMSAR, .1)['cd'] == pytest.approx(1.12, abs=5e-3)
    n, k, r = 14, 4, f['ranks'].to_numpy()  # the paper's statistic has no correction for ties
    assert (12*n/k/(k + 1)*((r**2).sum() - k*(k + 1)**2/4) == pytest.approx(9.28, abs=.01)
            and 9.28 < f['statistic'] < 10.5 and f['p'] < .05)
    for i in 'abcd':
        for j in 'abcd': assert i == j or (f['pairs'].loc[i, j] < .05) == (abs(f['ranks'][i] - f['ranks'][j]) > f['cd'])


def test_friedman_by_hand():
    "Three losses in the same order on four sets: ranks 1, 2, 3; statistic 12·4/12·(14 − 12) = 8."
    f = friedman(pd.DataFrame(dict(x=[.3]*4, y=[.2]*4, z=[.1]*4)))
    assert (f['ranks'].tolist() == [1., 2., 3.] and f['statistic'] == pytest.approx(8.)
            and f['p'] == pytest.approx(np.exp(-4)))
    for t in (pd.DataFrame(dict(x=[.3], y=[.2], z=[.1])), pd.DataFrame(dict(x=[.3, .2], y=[.2, .1]))):
        with pytest.raises(ValueError, match='^table: expected'): friedman(t)


def test_wilcoxon():
    w = wilcoxon(DEMSAR, 'b')
    assert w.statistic['a'] == 12. and w.p['a'] < .05
    t = pd.DataFrame(dict(a=[.1, .2, .3, .4, .5, .6], b=0., c=[.2, .1, .5, .1, .9, .1], d=[.1]*6))
    w = wilcoxon(t, 'a')
    assert w.p['b'] == pytest.approx(2/64)
    order, m = w.p.sort_values().index, 3
    holm, top = {}, 0.
    for i, l in enumerate(order): holm[l] = top = max(top, min(1., (m - i)*w.p[l]))
    assert w.p_holm.to_dict() == pytest.approx(holm)
    with pytest.raises(ValueError, match='^table: expected'): wilcoxon(t, 'e')


def test_interval_of_a_metric_that_has_replicates_alone():
    "mAP has no interval of its own in a record: its resamples give the variance over test instances."
    map_ = .7 + .02*np.random.default_rng(0).standard_normal(200)
    one = record(replicates=dict(map=pack(map_)))
    t = leaderboard([one], 'map').iloc[0]
    assert abs((t.upper - t.lower)/2 - ss.norm.ppf(.975)*map_.std(ddof=1)) < 1e-3 and t['mean'] == one['metrics']['map']
    assert np.isnan(leaderboard([record()], 'map').iloc[0].upper)


def sets(**more):
    "Three made-up data sets, as from `effects`."
    return pd.DataFrame(dict(dataset=list('abc'), encoder='mlp', mean=[.1, .2, .3], n_seeds=5) | more)


@pytest.mark.parametrize('f', [stratified, hierarchical, lambda t: stratified(t, strata=False)])
@pytest.mark.parametrize('more, said', [(dict(mean=[.1, np.nan, .3]), 'table: expected finite means, got others for b'),
                                        (dict(dataset=list('aba')), 'table: expected each data set once, got a twice')])
def test_a_set_has_one_finite_difference(f, more, said):
    with pytest.raises(ValueError, match=said): f(sets(by_seed=[{0: .1, 1: .2}]*3, spread=[{}]*3, **more))


def test_a_set_whose_error_is_unknown_is_no_exact_one():
    with pytest.raises(ValueError, match='table: expected two seeds or resamples of a, got neither'):
        hierarchical(sets(by_seed=[{0: .1}]*3, spread=[{}]*3))
    with pytest.raises(ValueError, match='margin: expected a number above 0, got -1'):
        hierarchical(sets(by_seed=[{0: .1, 1: .2}]*3, spread=[{}]*3), margin=-1)


def test_what_can_decide_nothing_says_so_everywhere():
    "One degree of freedom: open, p of one, no difference that would be found."
    r = dict(mean=9., se=.001, df=1)
    assert verdict(r) == 'open' and p_value(r) == 1 and np.isnan(smallest(r)) and not within(dict(r, mean=0.))
    for f in (leave_out, by_stratum): assert f(pd.DataFrame()) == {}


@pytest.mark.parametrize('call, said', [(lambda: holm(dict(a=np.nan)), 'p: expected numbers in'),
    (lambda: holm(dict(a=7.)), 'p: expected numbers in'), (lambda: holm(dict(a=.1), 5), 'alpha: expected'),
    (lambda: smallest(dict(mean=0, se=.1, df=9), power=80), 'power: expected'),
    (lambda: smallest(dict(mean=0, se=.1, df=9), power=.04), 'power: expected more than'),
    (lambda: verdict(dict(mean=0, se=.1, df=9), give=-1), 'give: expected'),
    (lambda: verdict(dict(mean=0, se=.1, df=9), equal=np.nan), 'equal: expected'),
    (lambda: fold_interval([.1, .2], np.inf), 'ratio: expected'),
    (lambda: paired(*[np.ones((4, 2))]*1, [np.ones((4, 2))], [np.ones((4, 2))], n=1), 'n: expected'),
    (lambda: mean_error([.1, .2], [-.01, .02]), 'within: expected'),
    (lambda: friedman(pd.DataFrame(np.where(np.eye(3), np.nan, 1.), list('abc'))),
     'table: expected finite scores, got others on a, b, c'),
    (lambda: wilcoxon(pd.DataFrame(dict(x=[1., np.nan], y=[1., 2.]), list('ab')), 'x'),
     'table: expected finite scores')])
def test_numbers_that_mean_nothing(call, said):
    with pytest.raises(ValueError, match=said): call()


def pair(change=None, **more):
    "Records of two losses on one set, two seeds, of which those of one loss are changed."
    recs = [dict(id=f'{l}{s}{x}', loss=l, dataset='d', encoder='mlp', settings={}, fraction=1., seed=s, split=x,
                 readout='probe1', checkpoint='last', data_sha256='1', metrics=dict(macro_f1=.5 + .01*s))
            for l in ('reg', 'bce') for s in (0, 1) for x in ('val', 'test')]
    return [dict(r, **more, **(change(r) if change else {})) if r['loss'] == 'bce' else r for r in recs]


@pytest.mark.parametrize('recs, said', [(pair(fraction=.5), 'records: expected one fraction for reg and bce on d'),
    (pair(data_sha256='2'), 'records: expected one data_sha256'),
    (pair(lambda r: dict(seed=r['seed'] + 5)), r'records: expected a seed that reg and bce on d have in common, got '
                                               r'\[0, 1\] and \[5, 6\]'),
                                        (pair(metrics=dict(macro_f1=np.nan)),
                                         'records: expected a finite macro_f1 in bce0test, got nan')])
def test_sides_that_cannot_be_compared(recs, said):
    with pytest.raises(ValueError, match=said): effect(recs, 'd', 'reg', 'bce')
    if 'in common' in said: assert not len(effects(recs, 'reg', 'bce')) # a set that cannot be compared yet
    else:
        with pytest.raises(ValueError, match=said): effects(recs, 'reg', 'bce')


def test_effects_takes_names_as_effect_does():
    assert (effects(pair(), 'reg', 'bce')['mean'].tolist() == [0.]
            and not len(effects(pair(), 'reg', 'bce', datasets=())))
    with pytest.raises(ValueError, match='others: expected at least one loss, got none'): effects(pair(), 'reg', ())
    with pytest.raises(ValueError, match='records: expected one encoder for d, got bag, mlp'):
        effects(pair(encoder='bag'), 'reg', 'bce')
