#!/usr/bin/env bash
# Brings an installation up, or up to date: stack, image, manifests; looks whether it works, and goes back if it does not.
#
#   CLUSTER=my-cluster k8s/aws/deploy.sh ECR_REGISTRY ACCOUNT_ID [--dry-run]
#   CLUSTER=my-cluster k8s/aws/deploy.sh 123456789012.dkr.ecr.eu-west-1.amazonaws.com 123456789012
#
# Needs the AWS CLI, docker and kubectl, whose current context is the cluster. What it reads of the environment:
#
#   CLUSTER           the EKS cluster's name (required)
#   IDENTITY          irsa (default), or pod-identity
#   PREFIX            start of all names in AWS, and the stack's name (bucket-brigade)
#   NAMESPACE         the Kubernetes namespace, as in the overlay (bucket-brigade)
#   OVERLAY           a folder beside overlays/production (production)
#   CONTEXT           what docker builds (this repository; your own folder with FROM and your tasks)
#   TAG               the image's tag (a time and the commit); a tag is never overwritten
#   PLATFORM          linux/amd64, which the nodes of cluster.yaml are
#   STACK_PARAMETERS  further parameters of stack.yaml: "Encryption=kms ClaimsTable=no"
#   TIMEOUT_SECONDS   how long the rollout, and then the check, may take (600)
#
# --dry-run asks and prints, and changes nothing. Exit code: 0 done, 1 it failed (and was rolled back), 2 to mend first.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
overlays=$here/../overlays
check=bucket-brigade-deploy-check

say() { printf '==> %s\n' "$*"; }
mend() {
  printf 'deploy.sh: %s\n' "$*" >&2
  exit 2
}
change() { # a command that changes something
  if [ "$dry_run" = yes ]; then
    printf 'would run: %s\n' "$*"
  else
    "$@" || {
      printf 'deploy.sh: failed: %s\n' "$*" >&2
      exit 1
    }
  fi
}

# ---- what is asked for

dry_run=no
arguments=()
for argument in "$@"; do
  case $argument in
    --dry-run) dry_run=yes ;;
    -h | --help)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    -*) mend "$argument is no option; --dry-run is the only one" ;;
    *) arguments+=("$argument") ;;
  esac
done
[ "${#arguments[@]}" -eq 2 ] || mend "usage: deploy.sh ECR_REGISTRY ACCOUNT_ID [--dry-run]"
registry=${arguments[0]} account=${arguments[1]}

[[ $account =~ ^[0-9]{12}$ ]] || mend "ACCOUNT_ID=$account: an AWS account has twelve digits"
[[ $registry =~ ^([0-9]{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?$ ]] ||
  mend "ECR_REGISTRY=$registry: must be like $account.dkr.ecr.eu-west-1.amazonaws.com"
[ "${BASH_REMATCH[1]}" = "$account" ] || mend "ECR_REGISTRY is of account ${BASH_REMATCH[1]}, and ACCOUNT_ID is $account"
export AWS_REGION=${BASH_REMATCH[2]} AWS_DEFAULT_REGION=${BASH_REMATCH[2]} AWS_PAGER=""

cluster=${CLUSTER:-}
[ -n "$cluster" ] || mend "CLUSTER is not set: the name of the EKS cluster"
identity=${IDENTITY:-irsa}
case $identity in irsa | pod-identity) ;; *) mend "IDENTITY=$identity: must be irsa or pod-identity" ;; esac
prefix=${PREFIX:-bucket-brigade}
namespace=${NAMESPACE:-bucket-brigade}
overlay=${OVERLAY:-production}
context=${CONTEXT:-$here/../..}
platform=${PLATFORM:-linux/amd64}
timeout_seconds=${TIMEOUT_SECONDS:-600}
read -r -a more_parameters <<<"${STACK_PARAMETERS:-}"
commit=$(git -C "$here" rev-parse --short=12 HEAD 2>/dev/null || echo none)
tag=${TAG:-$(date -u +%Y%m%d-%H%M%S)-$commit}
image=$registry/$prefix

for command in aws docker kubectl; do
  command -v "$command" >/dev/null || mend "$command is not installed"
done
[ -f "$overlays/$overlay/kustomization.yaml" ] || mend "OVERLAY=$overlay: there is no k8s/overlays/$overlay"
[ -f "$context/Dockerfile" ] || mend "CONTEXT=$context: there is no Dockerfile in it"
caller=$(aws sts get-caller-identity --query Account --output text) || mend "AWS does not take the credentials"
[ "$caller" = "$account" ] || mend "the credentials are of account $caller, and ACCOUNT_ID is $account"
kube=$(kubectl config current-context) || mend "kubectl has no context: aws eks update-kubeconfig --name $cluster"
case $kube in *"$cluster"*) ;; *) mend "kubectl's context is $kube, which does not name the cluster $cluster" ;; esac

work=$(mktemp -d "$overlays/.deploy.XXXXXX")
trap 'rm -rf "$work"' EXIT

# ---- the stack; CloudFormation undoes by itself what it cannot finish

say "stack $prefix in $AWS_REGION"
parameters=("Prefix=$prefix" "Namespace=$namespace")
if [ "$identity" = irsa ]; then
  issuer=$(aws eks describe-cluster --name "$cluster" --query cluster.identity.oidc.issuer --output text) ||
    mend "CLUSTER=$cluster: cannot be described"
  parameters+=("OidcIssuer=${issuer#https://}")
else
  parameters+=("ClusterName=$cluster")
fi
change aws cloudformation deploy --stack-name "$prefix" --template-file "$here/stack.yaml" \
  --capabilities CAPABILITY_NAMED_IAM --no-fail-on-empty-changeset --tags "bucket-brigade=$prefix" \
  --parameter-overrides "${parameters[@]}" ${more_parameters[@]+"${more_parameters[@]}"}

output() { # the value of one of the stack's outputs; empty while there is no stack
  aws cloudformation describe-stacks --stack-name "$prefix" --output text \
    --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue" 2>/dev/null | sed '/^None$/d' || true
}
queue_url=$(output QueueUrl)
if [ -z "$queue_url" ] && [ "$dry_run" = no ]; then
  mend "the stack $prefix has no outputs: aws cloudformation describe-stack-events --stack-name $prefix"
fi

# ---- do the manifests speak of this stack?

rendered=$(kubectl kustomize "$overlays/$overlay") || mend "k8s/overlays/$overlay cannot be built"
# No pipes into grep -q below: it leaves at its first find, and what still writes into the pipe would be a failure.
# The roles of the stack are for service accounts in this namespace.
grep -qx " *namespace: $namespace" <<<"$rendered" ||
  mend "NAMESPACE=$namespace: k8s/overlays/$overlay has another one (namespace: in its kustomization.yaml)"
# The image is named below; all else that is to be replaced has to be.
left=$(printf '%s\n' "$rendered" | grep -v '^ *\(- \)\{0,1\}image:' | grep -o 'REPLACE_[A-Z_]*' | sort -u | tr '\n' ' ' || true)
if [ -n "$left" ] || ! grep -qF -- "${queue_url:-https://}" <<<"$rendered"; then
  {
    echo "k8s/overlays/$overlay does not speak of this stack${left:+ (left: ${left% })}. In settings.env:"
    output SettingsEnv | sed 's/^/  /'
    echo "with BRIDGE_TASK_MODULES, and, with IRSA, as the annotations eks.amazonaws.com/role-arn:"
    echo "  bucket-brigade-worker                           $(output WorkerRoleArn)"
    echo "  bucket-brigade-exporter, bucket-brigade-flower  $(output ExporterRoleArn)"
    echo "KEDA's operator needs $(output KedaRoleArn), or a role that may assume it."
    echo "Then run this again."
  } >&2
  [ "$dry_run" = yes ] || exit 2
fi

# Without it Valkey and Flower would not start, and the rollout be taken back after TIMEOUT_SECONDS.
secret=bucket-brigade-monitor
if grep -qF "name: $secret" <<<"$rendered" &&
  [ -z "$(kubectl -n "$namespace" get secret "$secret" --ignore-not-found -o name)" ]; then
  missing="the Secret $secret is not in the namespace $namespace: docs/deploy/kubernetes.md, \"The Secret of bus and Flower\""
  [ "$dry_run" = yes ] || mend "$missing"
  printf 'deploy.sh: %s\n' "$missing" >&2
fi

# ---- the image

say "image $image:$tag"
if [ "$dry_run" = no ]; then
  # The password goes through a pipe: an argument could be read by whoever lists processes.
  aws ecr get-login-password | docker login --username AWS --password-stdin "$registry" || exit 1
else
  echo "would run: aws ecr get-login-password | docker login --username AWS --password-stdin $registry"
fi
change docker build --platform "$platform" --tag "$image:$tag" "$context"
change docker push "$image:$tag"
digest="sha256:0000000000000000000000000000000000000000000000000000000000000000"
if [ "$dry_run" = no ]; then
  digest=$(aws ecr describe-images --repository-name "$prefix" --image-ids "imageTag=$tag" \
    --query 'imageDetails[0].imageDigest' --output text) || exit 1
fi
if ! [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
  echo "deploy.sh: ECR knows no digest of $image:$tag" >&2
  exit 1
fi

# ---- the manifests: the overlay with this very image, by its digest, and a Job that asks the doctor

{
  printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n'
  printf 'resources: [../%s, check-job.yaml]\nimages:\n' "$overlay"
  # Whatever the overlay calls our image already.
  { printf '%s\n' "$rendered" | sed -n 's/^ *\(- \)\{0,1\}image: *//p' | sed 's/[@:][^/]*$//' |
    grep -E "(^|/)(bucket-brigade|$prefix)\$" || true; echo bucket-brigade; } | sort -u |
    while read -r name; do
      printf '  - {name: "%s", newName: "%s", digest: "%s"}\n' "$name" "$image" "$digest"
    done
} >"$work/kustomization.yaml"
sed "s/NAMESPACE/$namespace/" "$here/check-job.yaml" >"$work/check-job.yaml"
kubectl kustomize "$work" >"$work/all.yaml" || mend "k8s/overlays/$overlay with its image cannot be built"

revisions() { # name and revision of each Deployment of ours
  kubectl -n "$namespace" get deployments -l app.kubernetes.io/part-of=bucket-brigade -o \
    jsonpath='{range .items[*]}{.metadata.name}{" "}{.metadata.annotations.deployment\.kubernetes\.io/revision}{"\n"}{end}'
}
roll_back() {
  say "rolling back"
  revisions | while read -r name revision; do
    before=$(printf '%s\n' "$revisions_before" | sed -n "s/^$name //p")
    # One that this deployment did not change has nothing to go back to.
    if [ -z "$before" ]; then
      echo "deployment $name is new: there is nothing to go back to"
    elif [ "$before" != "$revision" ]; then
      kubectl -n "$namespace" rollout undo "deployment/$name" "--to-revision=$before"
      kubectl -n "$namespace" rollout status "deployment/$name" "--timeout=${timeout_seconds}s" || true
    fi
  done
}
failed() {
  printf 'deploy.sh: %s\n' "$*" >&2
  roll_back
  exit 1
}

say "manifests of k8s/overlays/$overlay in $namespace"
revisions_before=$(revisions 2>/dev/null || true)
# A Job cannot be changed, only made anew.
change kubectl -n "$namespace" delete job "$check" --ignore-not-found
if [ "$dry_run" = yes ]; then
  echo "would run: kubectl apply -f (k8s/overlays/$overlay with $image:$tag, and check-job.yaml)"
  # Exit code 1 means differences; a cluster that cannot be asked is told and no reason to stop.
  kubectl diff -f "$work/all.yaml" || true
  say "nothing was changed"
  exit 0
fi

# Some of it may be there already when another part is refused.
kubectl apply -f "$work/all.yaml" || failed "the manifests were not all applied"

# ---- does it work?

say "rollout"
names=$(kubectl -n "$namespace" get deployments -l app.kubernetes.io/part-of=bucket-brigade -o name) ||
  failed "the cluster cannot be asked"
for name in $names; do
  kubectl -n "$namespace" rollout status "$name" "--timeout=${timeout_seconds}s" || failed "$name did not come up"
done

say "brigade doctor, in a pod with the workers' image, settings and role"
deadline=$(($(date +%s) + timeout_seconds))
# A question that finds no answer is asked again.
until [ "$(kubectl -n "$namespace" get job "$check" -o jsonpath='{.status.succeeded}' || true)" = 1 ]; do
  verdict=$(kubectl -n "$namespace" get job "$check" -o jsonpath='{.status.conditions[?(@.type=="Failed")].status}' || true)
  if [ "$verdict" = True ] || [ "$(date +%s)" -ge "$deadline" ]; then
    kubectl -n "$namespace" logs "job/$check" --tail=50 >&2 || true
    failed "the check $([ "$verdict" = True ] && echo failed || echo "did not end in $timeout_seconds s")"
  fi
  sleep 2
done
kubectl -n "$namespace" logs "job/$check" --tail=50 || true

say "KEDA"
scalers=$(kubectl -n "$namespace" get scaledobjects,scaledjobs -l app.kubernetes.io/part-of=bucket-brigade -o name) ||
  failed "KEDA is not there"
for scaler in $scalers; do
  kubectl -n "$namespace" wait --for=condition=Ready "$scaler" --timeout=120s || failed "$scaler is not ready"
done

say "done: $image@$digest"
