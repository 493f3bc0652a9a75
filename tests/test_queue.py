"The queue: its content, its momentum, and equality with a larger batch."
import copy, math, pickle, warnings
from collections import deque
import numpy as np, pytest, torch
from torch import nn
from mlcl.checks import label_batches, random_labels
from mlcl.learner import make_learner
from mlcl.losses import LOSSES, Block, NoPositivesWarning, contrast
from mlcl.losses.contrast import positions
from mlcl.scale.queue import LabelQueue, QueueCallback, WithQueue, momentum_update
from helpers import make_loss

F64 = torch.float64
NAMES = [k for k, cls in LOSSES.items() if cls.route == 'embeddings' and k != 'proto'] # which is refused
SETTINGS = [(k, {}) for k in NAMES] + [('reg', dict(alpha=1.)), ('reg', dict(alpha=-1.)), ('abalone', dict(beta=.5)),
                                       ('reg', dict(tile=1)), ('base', dict(tile=3))]


def dense(loss, x, y, n):
    "The loss over (x, y) with the last n instances, and prototypes where the loss says so, as anchors."
    batch = Block(x, y)
    anchors, refs = loss.blocks(batch, batch)
    rows = [torch.arange(len(a.labels))[-n if a.labels is y else 0:] for a in anchors]
    own = [Block(a.embeddings[i], a.labels[i]) for a, i in zip(anchors, rows)]
    me = [positions(a, refs)[i] for a, i in zip(anchors, rows)]
    return contrast(own, refs, loss.weight, temperature=loss.temperature, me=me, drop_repulsion=loss.drop_repulsion,
                    apart=loss.apart, count=loss.count(y[-n:]))


def filled(x, y, size=None):
    queue = LabelQueue(size or len(x), x.shape[1], y.shape[1]).to(x.dtype)
    queue.enqueue(x, y)
    return queue


@pytest.mark.parametrize('size', [1, 2, 5, 7])
def test_content_is_the_newest_rows(size):
    "Against a deque, for batches that wrap around, fit exactly, and are larger than the queue."
    rng = np.random.default_rng(0)
    queue, ring, total = LabelQueue(size, 2, 3), deque(maxlen=size), 0
    assert len(queue) == 0 and queue.content()[0].shape == (0, 2)
    for n in [1, size, *rng.integers(1, 2*size + 3, 30), size]:
        x, y = torch.randn(n, 2), random_labels(n, 3, seed=int(n))
        queue.enqueue(x, y)
        ring.extend(zip(x.tolist(), y.bool().tolist()))
        total += int(n)
        got = sorted(zip(*(t.tolist() for t in queue.content())))
        assert got == sorted(ring) and len(queue) == min(total, size) and queue.pointer.item() == total % size


def test_oldest_goes_first():
    queue = LabelQueue(5, 1, 2)
    for i in (0., 3.): queue.enqueue(torch.tensor([[i + 1], [i + 2], [i + 3]]), torch.tensor([0, 1, 1]))
    assert queue.embeddings.flatten().tolist() == [6, 2, 3, 4, 5] and queue.pointer.item() == 1


def test_formats_and_state():
    queue = LabelQueue(4, 3, 5).double()
    assert queue.embeddings.dtype == F64 and queue.labels.dtype == torch.bool and queue.pointer.dtype == torch.int64
    x, y = torch.randn(3, 3, dtype=torch.float16), torch.eye(5)[:3]
    queue.enqueue(x.requires_grad_(), y)
    assert torch.equal(queue.content()[0], x.detach().double()) and not queue.content()[0].requires_grad
    other = LabelQueue(4, 3, 5).double()
    other.load_state_dict(pickle.loads(pickle.dumps(queue.state_dict())))
    for q in (queue, other): q.enqueue(torch.ones(2, 3), torch.tensor([3, 4]))
    assert all(torch.equal(a, b) for a, b in zip(queue.state_dict().values(), other.state_dict().values()))
    assert queue.pointer.item() == 1 and len(other) == 4 and not list(queue.parameters())


@pytest.mark.parametrize('name,make', [('size', lambda: LabelQueue(0, 2, 3)), ('dim', lambda: LabelQueue(4, 2., 3)),
    ('n_labels', lambda: LabelQueue(4, 2, -1)),
    ('embeddings', lambda: LabelQueue(4, 2, 3).enqueue(torch.zeros(2, 3), torch.zeros(2, 3))),
    ('embeddings', lambda: LabelQueue(4, 2, 3).enqueue(torch.full((2, 2), math.nan), torch.zeros(2, 3))),
    ('labels', lambda: LabelQueue(4, 2, 3).enqueue(torch.zeros(2, 2), torch.zeros(2, 4))),
    ('labels', lambda: LabelQueue(4, 2, 3).enqueue(torch.zeros(2, 2), torch.zeros(3, 3))),
    ('loss', lambda: WithQueue(make_loss('bce', 3, 2), LabelQueue(4, 2, 3))),
    ('m', lambda: momentum_update(nn.Linear(1, 1), nn.Linear(1, 1), -.1))])
def test_bad_input_names_the_argument(name, make):
    with pytest.raises(ValueError, match=f'^{name}: expected .*got'): make()


def test_momentum_by_hand():
    model, key = (nn.Linear(1, 1, bias=False) for _ in range(2))
    model.weight.data.fill_(1.), key.weight.data.fill_(0.)
    for want in (.1, .19, .271):
        momentum_update(key, model, .9)
        assert key.weight.item() == pytest.approx(want, abs=1e-6) and model.weight.item() == 1
    momentum_update(key, model, 1.)
    assert key.weight.item() == pytest.approx(.271, abs=1e-6)
    momentum_update(key, model, 0.)
    assert key.weight.item() == 1


def test_momentum_of_buffers():
    "Floating buffers are averaged, counters copied; another architecture is refused."
    model, key = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    model(torch.randn(8, 2)), model(torch.randn(8, 2))
    momentum_update(key, model, .9)
    assert key.num_batches_tracked.item() == 2
    assert (torch.allclose(key.running_mean, .1*model.running_mean)
            and torch.allclose(key.running_var, .9 + .1*model.running_var))
    with pytest.raises(ValueError): momentum_update(nn.Linear(2, 2), model)


@pytest.mark.parametrize('batch', [k for k in label_batches() if k != 'batch of one'])
@pytest.mark.parametrize('name,settings', SETTINGS)
def test_equals_the_joined_batch(name, settings, batch):
    "Value and gradient of the last batch's anchors, with frozen encoder and constant keys."
    torch.manual_seed(1)
    y = label_batches(10)[batch]
    n, x = 3, torch.randn(len(y), 4, dtype=F64)
    loss, last = make_loss(name, y.shape[1], 4, **settings).double(), x[-n:].clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NoPositivesWarning)
        a, b = WithQueue(loss, filled(x[:-n], y[:-n]))(last, y[-n:]), dense(loss, torch.cat([x[:-n], last]), y, n)
    assert a.item() == pytest.approx(b.item(), abs=1e-12)
    for g, h in zip(*(torch.autograd.grad(v, [last, *loss.parameters()]) for v in (a, b))):
        assert (g - h).abs().max() < 1e-12


@pytest.mark.filterwarnings('ignore::mlcl.losses.NoPositivesWarning')
@pytest.mark.parametrize('name', NAMES)
def test_what_a_queue_changes(name):
    "Nothing while empty or in evaluation mode; afterwards every loss; references that are given are kept."
    y, x = random_labels(9, 5), torch.randn(9, 4, dtype=F64)
    loss, queue = make_loss(name, 5, 4).double(), LabelQueue(6, 4, 5).double()
    y[1] = y[0]
    wrapped, value = WithQueue(loss, queue), loss(x[:4], y[:4])
    assert wrapped(x[:4], y[:4]) == value
    queue.enqueue(x[4:], y[4:])
    assert wrapped(x[:4], y[:4]) != value
    assert wrapped(x[:4], y[:4], x[4:6],
                   y[4:6]).item() == pytest.approx(loss(x[:4], y[:4], torch.cat([x[4:6], *queue.content()[:1]]),
                                                        torch.cat([y[4:6], y[4:]])).item(), abs=1e-12)
    assert wrapped.eval()(x[:4], y[:4]) == value


def test_wrapper_is_like_the_loss():
    loss = make_loss('abalone', 5, 4, beta=.5)
    wrapped = WithQueue(loss, LabelQueue(6, 4, 5))
    assert wrapped.route == 'embeddings' and wrapped.prototypes is loss.prototypes and wrapped.beta == .5
    assert [n for n, _ in wrapped.named_parameters()] == ['loss.prototypes'] and 'queue.pointer' in wrapped.state_dict()
    for other in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert torch.equal(other.prototypes, loss.prototypes)
    with pytest.raises(AttributeError): wrapped.nothing


@pytest.mark.parametrize('name', NAMES)
def test_enqueue_before_backward_does_no_harm(name):
    y, x = random_labels(9, 5).float(), torch.randn(9, 4)
    loss, grads = make_loss(name, 5, 4), []
    for early in (False, True):
        queue, last = filled(x[:5], y[:5]), x[5:].clone().requires_grad_()
        value = WithQueue(loss, queue)(last, y[5:])
        if early: queue.enqueue(last, y[5:])
        value.backward()
        grads.append(last.grad)
    assert torch.equal(*grads) and queue.embeddings.grad is None


@pytest.mark.parametrize('name', NAMES)
def test_half_precision(name):
    y, x = random_labels(12, 5).float(), torch.randn(12, 8)
    loss, exact = make_loss(name, 5, 8), None
    for dtype, rel in ((F64, 0), (torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-2)):
        value = WithQueue(copy.deepcopy(loss).to(F64 if dtype == F64 else torch.float32),
                          filled(x[:8].to(dtype), y[:8]))(x[8:].to(dtype), y[8:]).item()
        exact = exact or value
        assert value == pytest.approx(exact, rel=max(rel, 1e-12))


class Net(nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.body, self.loss = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(.5),
                                             nn.Linear(8, 4)), loss
    def forward(self, x): return self.body(x)


def test_callback():
    """In every step: the loss sees the keys of earlier batches alone; then the key model follows and its
    embeddings enter, without gradient."""
    from fastai.callback.core import Callback
    from fastai.callback.progress import ProgressCallback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from mlcl.callbacks import Batches

    seen = []

    class Spy(Callback):
        run_after = QueueCallback
        def before_batch(self): seen.append(len(queue)) if self.training else None
        def after_step(self):
            key = self.learn.queue.key
            with torch.no_grad(): want = key(self.x)
            assert torch.equal(queue.embeddings[(queue.pointer - 8) % 20], want[0])
            self.learn.moved = getattr(self.learn, 'moved', []) + [next(key.parameters()).clone()]

    x, y = torch.randn(32, 6), random_labels(32, 5).float()
    queue = LabelQueue(20, 4, 5)
    net = Net(WithQueue(make_loss('reg', 5, 4), queue))
    learn = Learner(DataLoaders(*[Batches((x, y), 8) for _ in range(2)], device='cpu'), net, loss_func=net.loss, lr=.1,
                    cbs=[QueueCallback(queue, .5), Spy()])
    learn.remove_cbs(ProgressCallback)
    with learn.no_logging(): learn.fit(2)
    assert seen == [0, 8, 16, 20, 20, 20, 20, 20] and queue.pointer.item() == 64 % 20
    key = learn.queue.key
    assert all(not torch.equal(a, b) for a, b in zip(learn.moved, learn.moved[1:]))
    assert (not key.training and key.loss.queue is queue and all(p.grad is None and not p.requires_grad
                                                                 for p in key.parameters()))
    assert (all(not torch.equal(k, q) for k, q in zip(key.body.parameters(), net.body.parameters()))
            and not queue.embeddings.requires_grad)
    trained = {id(p) for g in learn.opt.param_lists for p in g}
    assert trained == {id(p) for p in net.parameters()}


def test_training_on_digits():
    from fastai.callback.progress import ProgressCallback
    from mlcl.data import load

    ds = load('digits', n=300)
    learn = make_learner(ds, 'resnet', 'reg', dict(batch_size=32, projection=8))
    queue = LabelQueue(64, 8, ds.n_labels)
    learn.model.loss = learn.loss_func = WithQueue(learn.model.loss, queue)
    learn.add_cb(QueueCallback(queue, m=.9))
    learn.remove_cbs(ProgressCallback)
    with learn.no_logging(): learn.fit(2)
    assert len(queue) == 64 and queue.embeddings.isfinite().all() and (queue.labels.sum(1) > 0).all()
    assert all(np.isfinite(list(r.values())).all() for r in learn.monitor.history)
    assert (learn.queue.key.encoder.state_dict()[k := next(iter(dict(learn.model.encoder.named_parameters())))]
            != learn.model.encoder.state_dict()[k]).any()
