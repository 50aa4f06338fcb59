"""What `gpuctl --help` says. A test holds it against the verbs, another against 80 columns."""

TEXT = """\
usage: gpuctl [--socket PATH] VERB ...

gpuctl talks to gpud, which runs shell jobs on the GPUs of this machine.
Alone it says how things stand.

submit
  submit      queue a shell command, or many

look
  status      everything at one glance; the same as gpuctl alone
  ls          jobs as a table
  show        all that is known of a job: attempts, logs, story
  why         why a job waits and when it will start, or how it ended
  logs        what a job has written; -f follows
  wait        wait until jobs are done, and exit as they did
  events      what happened; -f follows
  gpus        the GPUs, who uses them, and why one takes no work
  sources     where jobs come from, and whether that works
  groups      groups of jobs: who runs, waits and failed, and their limits
  users       users: who runs and waits, and what they have used
  metrics     what gpud measures, for Prometheus and the like

change jobs (before more than ten you are asked; without a terminal: --yes)
  cancel      end jobs that wait or run
  retry       queue jobs again that are done
  hold        keep queued jobs from starting
  release     let held jobs start
  pause       stop running jobs for a while; they keep their GPUs
  continue    let paused jobs go on
  checkpoint  let jobs save their state and leave; they are queued again
  edit        change jobs that wait
  move        put jobs elsewhere in the queue
  swap        let two jobs change places

change gpud
  drain       start nothing new; running jobs go on
  undrain     start jobs again
  source      stop or start reading a source
  group       how many jobs of a group may run, or fail
  prune       forget old jobs and remove their logs
  reload      read the configuration again
  ping        say whether gpud answers
  shutdown    end gpud; running jobs go on

jobs are selected by: 42, 3-9, @ (the last one), @~2, name:NAME,
  state:failed, source:NAME, group:NAME, label:K=V, user:NAME, all

examples:
  gpuctl submit "python train.py --lr 1e-3 > log"
  gpuctl submit --gpus 2 --time-limit 12h python train.py
  gpuctl submit - < commands.txt
  gpuctl logs -f @
  gpuctl wait name:sweep && gpuctl submit python summary.py
  gpuctl retry state:failed

  gpuctl VERB --help     the options of a verb
  gpuctl --version

environment: GPUD_SOCKET (where gpud listens), NO_COLOR, COLUMNS
exit status: 0 done, 1 refused, 2 usage, 3 not found, 4 cannot reach gpud
"""
