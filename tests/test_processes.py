"Real processes on the CPU: value and gradients are those of one process with the joined batch."
import copy, os, warnings
import numpy as np, pytest, torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from mlcl.checks import label_batches, random_labels
from mlcl.losses import LOSSES, NoPositivesWarning
from mlcl.scale.processes import Gathered, in_processes, join, value_and_gradients, world
from mlcl.scale.queue import LabelQueue, WithQueue
from helpers import make_loss

F64 = torch.float64
NAMES = [k for k, cls in LOSSES.items() if cls.route == 'embeddings']
BATCHES = {k: y for k, y in label_batches(9).items() if k in ('random', 'with empty sets', 'nobody shares', 'all empty',
                                                              'one label')}
BATCHES['process 0 unlabelled'] = torch.cat([torch.zeros(1, 5), random_labels(8, 5)]).double()
BATCHES['process 1 unlabelled'] = random_labels(9, 5).index_fill(0, torch.tensor([1, 2]), 0)
CASES = [(k, b, {}) for k in NAMES for b in BATCHES] + [('reg', 'random', dict(alpha=1.)),
         ('reg', 'with empty sets', dict(alpha=-1.)),
         ('abalone', 'with empty sets', dict(beta=.5)), ('reg', 'random', dict(tile=2)),
         ('base', 'random', dict(tile=1))]


def cut(t, n): # uneven: 1 row, 2 rows …, the rest
    return t.split([*range(1, n), len(t) - n*(n - 1)//2])


def case(name, batch, settings, n):
    torch.manual_seed(2)
    y = BATCHES[batch]
    x, loss = torch.randn(len(y), 4, dtype=F64), make_loss(name, y.shape[1], 4, **settings).double()
    return loss, list(zip(cut(x, n), cut(y, n)))


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4)).double()


def quiet(f, *args):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NoPositivesWarning)
        return f(*args)


def quiet_gradients(*args): return quiet(value_and_gradients, *args)


@pytest.fixture(scope='module', params=[2, 3])
def many(request):
    "For each case the results of all processes; then those with a model."
    n = request.param
    cases = [c for c in CASES if n == 3 or c[1] == 'random'] # two processes: the regular batches only
    out = in_processes(quiet_gradients, n, [case(*c, n) for c in cases]
                       + [(*case(k, 'random', {}, n), net()) for k in NAMES])
    return n, dict(zip([*map(str, cases), *NAMES], zip(*out)))


def same(got, want, n):
    value, dx, *rest = want
    assert all(abs(g[0] - value) < 1e-12 for g in got)
    assert np.abs(np.concatenate([g[1] for g in got]) - n*dx).max() < 1e-12
    for g in got:
        for a, b in zip(g[2:], rest, strict=True): assert np.abs(a - b).max() < 1e-12


@pytest.mark.parametrize('i', range(len(CASES)), ids=lambda i: '-'.join(map(str, CASES[i])))
def test_equals_one_process(many, i):
    n, out = many
    if str(CASES[i]) in out: same(out[str(CASES[i])], quiet_gradients(*case(*CASES[i], n)), n)


@pytest.mark.parametrize('name', NAMES)
def test_model_in_ddp(many, name):
    "The parameters of a model in DistributedDataParallel receive the gradient of the joined batch."
    n, out = many
    want = value_and_gradients(*case(name, 'random', {}, n), net())
    assert (len(want) == 2 + hasattr(case(name, 'random', {}, n)[0], 'prototypes') + 4
            and all(np.abs(g).max() > 0 for g in want[1:]))
    same(out[name], want, n)


class Whole(nn.Module):
    "A model that owns its loss, as those of the study do."
    def __init__(self, loss): super().__init__(); self.net, self.loss = net(), Gathered(loss)
    def forward(self, x): return self.net(x)


def steps(parts, loss):
    "Two steps with the loss inside the wrapped model; the losses, and the parameters afterwards."
    x, y = parts[dist.get_rank()] if world() > 1 else map(torch.cat, zip(*parts))
    model = Whole(copy.deepcopy(loss))
    ddp, opt, values = (DistributedDataParallel(model) if world() > 1 else model,
                        torch.optim.AdamW(model.parameters(), .1), [])
    for _ in range(2):
        opt.zero_grad()
        value = model.loss(ddp(x), y)
        value.backward(), opt.step(), values.append(value.item())
    return np.array(values), *(p.detach().numpy() for p in model.parameters())


def with_references(loss, parts, refs):
    x, y = parts[dist.get_rank()] if world() > 1 else map(torch.cat, zip(*parts))
    v, r = refs[dist.get_rank()] if world() > 1 else map(torch.cat, zip(*refs))
    x, v = x.clone().requires_grad_(), v.clone().requires_grad_()
    value = Gathered(loss)(x, y, v, r)
    return [value.detach().numpy(), *(g.numpy() for g in torch.autograd.grad(value, [x, v], allow_unused=True)
                                      if g is not None)]


def with_queue(loss, first, second):
    "Joined keys in the queue of every process, then a joined loss that meets them."
    queue = LabelQueue(16, 4, 5).double()
    take = lambda parts: parts[dist.get_rank()] if world() > 1 else map(torch.cat, zip(*parts))
    x, y = take(first)
    queue.enqueue(*((join(x)[0], join(y)[0]) if world() > 1 else (x, y)))
    x, y = take(second)
    x = x.clone().requires_grad_()
    value = Gathered(WithQueue(loss, queue))(x, y)
    return [value.detach().numpy(), torch.autograd.grad(value, x)[0].numpy()]


def warned(loss, parts):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        value = Gathered(loss)(*parts[dist.get_rank()])
    return value.item(), [w.category.__name__ for w in seen]


def refused(loss, parts):
    try: Gathered(loss)(*parts[dist.get_rank()])
    except ValueError as e: return str(e)


def rows_in_order(parts):
    x, before = join(parts[dist.get_rank()][0])
    return x.tolist(), before


def scores(loss, parts):
    "Rows and columns of the largest matrix of weights that a process makes."
    shapes, weight = [], loss.weight
    loss.weight = lambda *a: (w := weight(*a), shapes.append((len(w[0]), sum(m.shape[1] for m in w))))[0]
    Gathered(loss)(*parts[dist.get_rank()])
    return shapes


def formats(loss, x):
    "Every pair of formats of embeddings and labels, another on each process."
    out = []
    for kind in (torch.float16, torch.bfloat16, torch.float32, F64):
        for label in (torch.bool, torch.int64, torch.float16, F64):
            own = (x.to(kind), torch.ones(4, 5).to(label)) if dist.get_rank() else (x.float(), torch.ones(4, 5))
            value = Gathered(loss)(own[0].requires_grad_(), own[1])
            value.backward()
            out.append((str(value.dtype), value.item(), own[0].grad.dtype == own[0].dtype))
    return out


def class_indices(loss, x):
    "Indices that miss the last class on one process, mixed with rows, as labels and as references; the same as rows."
    a, b, eye, out = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 3, 3, 4]), torch.eye(5), []
    mine, other = (b, a) if dist.get_rank() else (a, b)
    for y in (mine, eye[mine]): out.append(Gathered(loss)(x, y).item())
    out.append(Gathered(loss)(x, eye[mine] if dist.get_rank() else mine).item())
    for y, r in ((mine, other), (eye[mine], other), (mine, eye[other]), (eye[mine], eye[other])):
        out.append(Gathered(loss)(x, y, x + 1, r).item())
    return out


def dispatch(name, *args): return globals()[name](*args)


@pytest.fixture(scope='module')
def pair():
    "All other checks with two processes, started together."
    a, b = ([*zip(cut(torch.randn(7, 4, dtype=F64), 2), cut(random_labels(7, 5, seed=s), 2))] for s in (1, 2))
    x, eye = torch.randn(4, 4, dtype=F64), torch.eye(5, dtype=F64)
    base, reg = make_loss('base', 5, 4).double(), make_loss('reg', 5, 4).double()
    lonely, shared = [(x[:2], eye[:2]), (x[2:], eye[2:4])], [(x[:2], eye[:2]), (x[2:], eye[:2])]
    cases = dict(steps=('steps', a, reg), queue=('with_queue', reg, a, b), lonely=('warned', base, lonely),
                 shared=('warned', base, shared),
                 empty=('warned', reg, [(p, q*0) for p, q in a]), scores=('scores', reg, a), order=('rows_in_order', a),
                 columns=('refused', base, [(x, eye[:4]), (x[:, :3], eye[:4])]),
                 labels=('refused', base, [(x, eye[:4]), (x, eye[:4, :4])]),
                 dim=('refused', reg, [(x[:, :3], eye[:4])]*2),
                 alone=('refused', base, [(x, eye[:4]), (x*np.nan, eye[:4])]),
                 index=('refused', base, [(x, eye[:4]), (x, torch.tensor([0, 1, 5, 5]))]),
                 none=('refused', base, [(x, eye[:4]), (x, eye[:4], x, eye[:4])]), float16=('formats', base, x),
                 indices=('class_indices', base, x))
    cases |= {f'refs {k}': ('with_references', make_loss(k, 5, 4).double(), a, b) for k in NAMES if k != 'proto'}
    return cases, dict(zip(cases, zip(*in_processes(dispatch, 2, list(cases.values())))))


def test_loss_inside_the_model(pair):
    cases, out = pair
    want = dispatch(*cases['steps'])
    for got in out['steps']:
        for a, b in zip(got, want, strict=True): assert np.abs(a - b).max() < 1e-10


def test_queue_of_joined_keys(pair):
    cases, out = pair
    same(out['queue'], dispatch(*cases['queue']), 2)


@pytest.mark.parametrize('name', [k for k in NAMES if k != 'proto'])
def test_given_references(pair, name):
    cases, out = pair
    got, (value, *grads) = out[f'refs {name}'], dispatch(*cases[f'refs {name}'])
    for i, g in enumerate(grads): assert np.abs(np.concatenate([r[1 + i] for r in got]) - 2*g).max() < 1e-12
    assert all(abs(r[0] - value) < 1e-12 for r in got) and len(grads) == 2


def test_warning_only_if_nobody_has_a_positive(pair):
    _, out = pair
    for v, seen in (*out['lonely'], *out['empty']): assert v == 0 and seen == ['NoPositivesWarning']
    for v, seen in out['shared']: assert v > 0 and seen == []


def test_everybody_raises(pair):
    _, out = pair
    assert out['columns'] == ('embeddings: expected equally many columns in all processes, got [4, 3]',)*2
    assert out['labels'] == ('labels: expected equally many columns in all processes, got [5, 4]',)*2
    assert out['dim'] == ('embeddings: expected 4 columns like the loss, got 3',)*2


def test_an_error_of_one_is_raised_by_all(pair):
    _, out = pair
    assert out['alone'] == ('embeddings: expected valid input in all processes, got an error in process 1',
                            'embeddings: expected finite numbers, got 16 NaN or infinite of 16')
    assert out['index'] == ('labels: expected equally many columns in all processes, got [5, 6]',)*2
    assert out['none'] == ('ref_embeddings: expected in all processes or in none, got them in 1 of 2',)*2


def test_formats_that_differ_between_processes(pair):
    """One format, the widest: the values of both processes are equal, and gradients come back in the format that
    was given."""
    _, (zero, one) = pair[0], pair[1]['float16']
    assert [r[:2] for r in zero] == [r[:2] for r in one] and all(r[2] for r in (*zero, *one))
    assert ([r[0] for r in zero] == ['torch.float32']*12 + ['torch.float64']*4
            and max(r[1] for r in zero)/min(r[1] for r in zero) < 1.02)


def test_class_indices_of_all_processes(pair):
    _, (zero, one) = pair[0], pair[1]['indices']
    assert zero == one and zero[:3] == [zero[0]]*3 and zero[3:] == [zero[3]]*4 and zero[0] > 0 < zero[3]


def test_rows_are_in_the_order_of_ranks(pair):
    cases, out = pair
    parts = cases['order'][1]
    assert out['order'] == ((torch.cat([p[0] for p in parts]).tolist(), 0),
                            (torch.cat([p[0] for p in parts]).tolist(), 1))


def test_each_row_once(pair):
    "Own instances and a share of the prototypes, against all references."
    _, out = pair
    assert out['scores'] == ([(1, 12), (3, 12)], [(6, 12), (2, 12)])


@pytest.mark.parametrize('name', NAMES)
def test_alone_it_is_the_loss(name):
    y, x = random_labels(6, 5), torch.randn(6, 4, dtype=F64)
    loss = make_loss(name, 5, 4).double()
    assert world() == 1 and Gathered(loss)(x, y) == loss(x, y) and Gathered(loss).temperature == loss.temperature
    with pytest.raises(ValueError, match='^loss: expected'): Gathered(make_loss('bce', 5, 4))


def fastai_steps(x, y):
    "One epoch of two steps with fastai, by `distrib_ctx` where there are processes; the losses and the parameters."
    from fastai.callback.progress import ProgressCallback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import SGD
    from mlcl.callbacks import Batches

    torch.manual_seed(0)
    model = Whole(make_loss('reg', 5, 4)).float() # fastai's recorder wants float32
    learn = Learner(DataLoaders(*[Batches((x, y), 8//world()) for _ in range(2)], device='cpu'), model,
                    loss_func=model.loss, opt_func=SGD, lr=.1)
    learn.remove_cbs(ProgressCallback)
    with learn.no_logging():
        if world() == 1: learn.fit(1)
        else:
            from fastai.distributed import DistributedDL
            # fastai sends the indices through CUDA; they are equal here
            DistributedDL._broadcast = lambda self, t, rank: t
            os.environ.update(WORLD_SIZE=str(world()), RANK=str(dist.get_rank()), LOCAL_RANK=str(dist.get_rank()),
                              MASTER_ADDR='127.0.0.1', MASTER_PORT='0')
            with learn.distrib_ctx(sync_bn=False, cpu=True): learn.fit(1)
    return [float(v) for v in learn.recorder.losses], [p.detach().numpy() for p in model.parameters()]


def test_fastai():
    pytest.importorskip('accelerate')
    torch.manual_seed(5)
    x, y = torch.randn(16, 4), random_labels(16, 5).float()
    out = in_processes(fastai_steps, 2, [(x, y)])
    order = torch.arange(16).view(2, 2, 4).transpose(0, 1).flatten() # each process has one half of the data
    values, params = fastai_steps(x[order], y[order])
    for got, ps in (r[0] for r in out):
        assert got == pytest.approx(values, rel=1e-6)
        for a, b in zip(ps, params, strict=True): assert np.abs(a - b).max() < 1e-5


def test_a_failure_is_reported():
    with pytest.raises(ZeroDivisionError): in_processes(divmod, 2, [(1, 0)])
