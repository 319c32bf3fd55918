# Sleeps until it is killed; at SIGTERM it does what its manner ($1) says. Notes each SIGTERM in a file ($2),
# which is there once it listens: a line with the number of the process, which may be that of a child that
# is about to become the tool. $3 only marks the process. Starts the rest, a command, as its tool.
use strict;
use warnings;

my ($manner, $file, $mark, @command) = @ARGV;
my ($tool, $count) = (0, 0);

sub note { open my $notes, '>>', $file or die "$file: $!"; syswrite $notes, $_[0]; }
sub doze { select undef, undef, undef, $_[0] }

$SIG{TERM} = sub { $count++; note("$$\n") } unless $manner eq 'dies';
# What it starts then ignores it, too.
$SIG{TERM} = 'IGNORE' if $manner eq 'ignores';
note('');
sub begin {
  $tool = fork // die "fork: $!";
  if (!$tool) { exec @command or die "$command[0]: $!" }
}
begin() if @command;
while (1) {
  sleep 1000;
  next unless $count;
  # Long enough to be asked a second time.
  if ($manner eq 'ends') { doze(0.05); exit 0 }
  if ($manner eq 'starts-another') { begin(); doze(0.05); exit 0 }
  if ($manner eq 'kills-its-tool') { kill 'TERM', $tool; doze(0.05); exit 143 }
}
