{{- define "tympan.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tympan.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tympan.labels" -}}
{{ include "tympan.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "tympan.scheme" -}}
{{ if .Values.tls.existingSecret }}HTTPS{{ else }}HTTP{{ end }}
{{- end }}

{{- define "tympan.authSecret" -}}
{{- if .Values.auth.existingSecret }}{{ .Values.auth.existingSecret }}{{ else if .Values.auth.keys }}{{ include "tympan.name" . }}-auth{{ end }}
{{- end }}

{{- define "tympan.claim" -}}
{{- if .Values.cache.existingClaim }}{{ .Values.cache.existingClaim }}{{ else if .Values.cache.persistent }}{{ include "tympan.name" . }}-cache{{ end }}
{{- end }}

{{- /* The value of one setting: lists are separated by commas; large numbers are not written as 1e+06. */ -}}
{{- define "tympan.settingValue" -}}
{{- if kindIs "slice" . }}{{ join "," . }}{{ else if kindIs "float64" . }}{{ if eq (floor .) . }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- /* Variables that values other than `settings` determine. */ -}}
{{- define "tympan.ownVariables" -}}
HOME: /tmp
XDG_CACHE_HOME: /cache
HF_HOME: /cache/huggingface
TRITON_CACHE_DIR: /cache/triton
TYMPAN_HOST: 0.0.0.0
TYMPAN_PORT: "8000"
TYMPAN_DRAIN_DELAY_SECONDS: {{ .Values.shutdown.drainDelaySeconds | quote }}
TYMPAN_GRACE_SECONDS: {{ .Values.shutdown.graceSeconds | quote }}
{{- if gt (int .Values.gpu.count) 1 }}
TYMPAN_ENGINE_PROCESSES: {{ .Values.gpu.count | quote }}
{{- end }}
{{- if include "tympan.authSecret" . }}
TYMPAN_API_KEYS_FILE: /etc/tympan/auth/keys
{{- if or .Values.auth.existingSecret .Values.auth.tokenSecret }}
TYMPAN_TOKEN_SECRET_FILE: /etc/tympan/auth/token-secret
{{- end }}
{{- end }}
{{- if not (or (include "tympan.authSecret" .) (hasKey .Values.settings "allowed_hosts")) }}
{{- $name := include "tympan.name" . }}
{{- $namespaced := printf "%s.%s" $name .Release.Namespace }}
TYMPAN_ALLOWED_HOSTS: {{ list $name $namespaced (printf "%s.svc" $namespaced) (printf "%s.svc.cluster.local" $namespaced) .Values.ingress.host | compact | join "," }}
{{- end }}
{{- if .Values.auth.metricsKeyHash }}
TYMPAN_METRICS_KEYS: {{ .Values.auth.metricsKeyHash | quote }}
{{- end }}
{{- if .Values.tls.existingSecret }}
TYMPAN_TLS_CERTIFICATE: /etc/tympan/tls/tls.crt
TYMPAN_TLS_KEY: /etc/tympan/tls/tls.key
{{- end }}
{{- end }}
