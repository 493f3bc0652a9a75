"The guide on made-up records with known effects: which records count, what a line says, what a choice costs."
import numpy as np
import pytest
from mlcl import guide
from mlcl.study import FIFTEEN


def records(d, gain, readouts=None, seeds=3, study_losses=FIFTEEN, checkpoint='last', spread=.001):
    "Every loss scores .5 and its gain; readout → what it has more, on validation and on test data."
    res = []
    for loss in study_losses:
        for seed in range(seeds):
            for readout, (val, test) in (readouts or dict(probe=(.01, .01), own=(0., 0.))).items():
                for split, more in (('val', val), ('test', test)):
                    f1 = .5 + gain.get(loss, -.05) + more + spread*((seed*7 + len(loss) + int(d[1:])) % 5)
                    res.append(dict(id=f'{d}/{loss}/{seed}/{readout}/{split}', dataset=d, encoder='mlp', loss=loss,
                                    seed=seed, readout=readout, checkpoint=checkpoint, split=split,
                                    metrics=dict(macro_f1=f1)))
    return res


def several(gains, **how): return dict(labels=[r for i, g in enumerate(gains) for r in records(f'd{i}', g, **how)])
def facts(d):
    return dict(train=1000 if d < 'd3' else 9000, labels=10 if d < 'd3' else 100, cardinality=2.5, imbalance=5.
                if d < 'd3' else 20.)
def led(gains, **how): return guide.leads(guide.readings(several(gains, **how)), 'macro_f1', facts)


def test_the_study_with_most_losses_counts():
    one = records('d0', {}, study_losses=('bce', 'reg'))
    stores = dict(tuned=one, labels=records('d0', {}), text=records('d0', {})
                  + records('d1', {}, study_losses=('bce',)))
    assert guide.sources(stores) == dict(d0='labels') # the first of equal ones; a single loss is no comparison
    twins = [dict(r, dataset='arxiv_cs54') for r in one]
    assert guide.sources(dict(text=twins)) == dict(arxiv_cs54='text')
    assert guide.sources(dict(text=twins + [dict(r, dataset='aapd') for r in one])) == dict(aapd='text')


def test_readings_are_of_the_source_at_the_last_epoch():
    curve, best = (dict(r, **new) for r, new in zip(records('d0', {})[:2],
                                                    (dict(readout='online'), dict(checkpoint='best'))))
    stores = dict(tuned=records('d0', {}, study_losses=('bce', 'reg')), labels=records('d0', {}) + [curve, best])
    held = guide.readings(stores)
    assert {l for _, l in held} == set(FIFTEEN) and all(len(rs) == 12 for rs in held.values())


def test_validation_data_choose_the_readout():
    # the probe is better on validation data alone
    rs = records('d0', {}, dict(probe=(.1, 0.), own=(0., .2)), study_losses=('reg',))
    assert guide.preferred(rs, 'macro_f1') == 'probe'
    r = guide.versus(rs, records('d0', dict(bce=0.), dict(probe=(0., .2), own=(.1, .1)), study_losses=('bce',)),
                     'macro_f1')
    assert r['a'] == 'reg' and r['b'] == 'bce' and r['mean'] == pytest.approx(-.15, abs=.01) # −.05 against .1


def test_leads_need_two_seeds_of_both():
    lead = led([dict(bce=0., reg=.03)]*2)
    assert (set(lead) == set(FIFTEEN) - {'bce'} and len(lead['reg']) == 2
            and lead['reg']['mean'].round(2).tolist() == [.03]*2)
    assert lead['reg'][list(guide.PROPERTIES)].iloc[0].tolist() == [1000, 10, 2.5, 5.]
    assert led([dict(bce=0., reg=.03)], seeds=1) == {}


def test_a_line_says_how_sure_it_is():
    assert guide.advised(led([dict(bce=0., reg=.03)]*2)) == dict(advice='no evidence', lead='–', sets=0, seeds=0,
                                                                 certainty='–', ids=[])
    clear = guide.advised(led([dict(bce=0., reg=g) for g in (.03, .031, .032)]))
    assert ((clear['advice'], clear['sets'], clear['seeds'], clear['certainty']) == ('reg', 3, 3, 'sure')
            and len(clear['ids']) == 18)
    likely = guide.advised(led([dict(bce=0., reg=g) for g in (.02, .03, .04)]))
    assert likely['advice'] == 'reg' and likely['certainty'] == 'likely'
    unsure = guide.advised(led([dict(bce=0., reg=g) for g in (-.02, .03, .05)]))
    assert unsure['advice'] == 'bce, or reg' and unsure['certainty'] == 'unsure' and unsure['lead'].startswith('+0.0')
    behind = guide.advised(led([dict(bce=0., reg=-.01)]*3))
    assert behind['advice'] == 'bce (reg is next)' and behind['lead'].startswith('-0.0')


def test_the_table_has_a_line_for_each_situation():
    few, many = dict(bce=0., zlpr=.02), dict(bce=0., reg=.03)
    t = guide.decision_table(led([few]*3 + [many]*3))
    assert list(t.index) == list(guide.SITUATIONS)
    assert t.advice.tolist() == ['bce (reg is next)', 'zlpr', 'reg', 'no evidence', 'no evidence', 'zlpr', 'reg',
                                 'zlpr', 'reg'] and t.sets.tolist() == [6, 3, 3, 0, 0, 3, 3, 3, 3]


def test_regret_of_a_set_that_was_left_out():
    "ASL is far ahead on one set: it is advised on the two others, and not on the set itself."
    few, many = dict(bce=0., zlpr=.02), dict(bce=0., reg=.03)
    regret, rule, best = guide.left_out(led([few, few, dict(bce=0., zlpr=0., asl=.2), many, many, many]))
    assert rule == dict(d0='asl', d1='asl', d2='zlpr', d3='reg', d4='reg', d5='reg')
    assert best.tolist() == ['zlpr', 'zlpr', 'asl', 'reg', 'reg', 'reg']
    assert (np.allclose(regret['the rule'], [.07, .07, .2, 0, 0, 0], atol=.005)
            and np.allclose(regret['always bce'], [.02, .02, .2, .03, .03, .03], atol=.005))
    assert list(regret) == ['the rule', *(f'always {l}' for l in ('bce', 'zlpr', 'asl', 'reg', 'wreg', 'proto'))]


def test_what_a_readout_gains():
    two = dict(zip(('own@.5', 'own@tuned'), ((0., 0.), (.2, .05))))
    stores = several([dict(bce=0.), dict(bce=.1)], readouts=two)
    stores |= dict(tuned=records('d0', {}, dict(zip(two, ((0., 0.), (.2, .9))))),
                   text=records('d0', {}, dict(zip(two, ((0., 0.), (.2, .8))))))
    # neither the tuned study nor a later one counts
    mean, lower, upper = guide.readout_gain(stores, 'own@tuned', 'macro_f1')
    assert mean == pytest.approx(.05) and lower == pytest.approx(.05) and upper == pytest.approx(.05)
    reg = several([dict(bce=0., reg=.1), dict(bce=.1, reg=.2)], readouts=two)
    # another loss, the same readout
    assert guide.readout_gain(reg, 'own@.5', 'macro_f1', loss='reg')[0] == pytest.approx(.1)
